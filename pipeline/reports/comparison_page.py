"""A comparison of runs as one HTML page that works offline, without scripts."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.reports import html as html_page
from pipeline.reports.comparison import ABSENT, Column, Comparison
from pipeline.reports.curves import COLOURS, Curve, draw_curves
from pipeline.storage import layout as run_files
from pipeline.storage.run_reader import RecordedRun, RoundScore

_SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff"}
_FACTS = ("run", "method", "data", "seed", "digest", "rounds", "state", "search", "Rank-1", "mAP", "best Rank-1")
FIGURES = {
    "cluster-sizes": "How many clusters there are of each size",
    "eps-curve": "What other values of eps would have given",
    "feature-map": "Features of training images in the plane in which they differ most",
    "learning-curves": "Losses and results of all rounds so far",
    "prototype-similarity": "Similarity of visible and infrared prototypes",
    "retrieval": "Queries, and what they found first: right in blue, wrong crossed out",
    "text-similarity": "Similarity of visible and infrared texts",
}
"""What the figures of a round show; others are shown under their file's name."""


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page: runs, settings that differ, rounds, learning curves, and the last figures of each run.

    Raises:
        ConfigError: The file cannot be written, or exists and is not a page.

    Cost: about 0.2 s and 30 KB a curve, and four thirds of the bytes of the last figures.
    """
    html_page.write_page(file, _page(comparison))


def _page(comparison: Comparison) -> Iterator[str]:
    yield html_page.page_start("Runs compared")
    yield from _runs(comparison)
    yield from _settings(comparison)
    yield from _rounds(comparison)
    yield '<h2>Learning curves</h2>\n<div class="figures">\n'
    for column in comparison.columns:
        yield _figure(draw_curves(_curves(comparison, column), _title(column)), _title(column))
    yield "</div>\n"
    for letter, run in zip(comparison.letters, comparison.runs, strict=True):
        yield from _last_figures(letter, run)
    yield html_page.page_end()


def _runs(comparison: Comparison) -> Iterator[str]:
    rows = []
    for place, (letter, run) in enumerate(zip(comparison.letters, comparison.runs, strict=True)):
        last, best = run.scores[-1] if run.scores else None, run.best
        facts = [run.name, run.config.method, run.data, str(run.config.seed), run.digest]
        facts += [f"{len(run.rounds)} of {run.planned}", run.state, run.headline or ""]
        facts += [*_percent(last), "" if best is None else f"{_percent(best)[0]} in round {best.round}"]
        mark = f'<span class="mark" style="background:{COLOURS[place % len(COLOURS)]}"></span>'
        rows.append((mark + escape(letter), [escape(fact) for fact in facts]))
    yield _table("", _FACTS, rows)
    yield "<p>Rank-1 and mAP are those of the last round that was measured, in percent, of the search named. The best "
    yield "round is no result: the test has chosen it.</p>\n"


def _settings(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Settings that differ</h2>\n"
    rows = [(escape(one.setting), [_setting(value) for value in one.values]) for one in comparison.differences]
    if rows:
        yield _table("setting", comparison.letters, rows)
    else:
        yield "<p>None.</p>\n" if len(comparison.runs) > 1 else "<p>There is one run only.</p>\n"


def _rounds(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Rounds</h2>\n"
    heads = [f"{column.title} {letter}" for column in comparison.columns for letter in comparison.letters]
    places = range(len(comparison.runs))
    rows = [
        (
            str(number),
            [
                escape(column.text(comparison.value(column, place, number)))
                for column in comparison.columns
                for place in places
            ],
        )
        for number in comparison.rounds
    ]
    yield _table("round", heads, rows, numbers=True)


def _last_figures(letter: str, run: RecordedRun) -> Iterator[str]:
    yield f"<h2>Last figures of {escape(letter)}, {escape(run.name)}</h2>\n"
    shown = []
    for name, file in run_files.last_figures(run.path).items():
        try:
            content = file.read_bytes()
        except OSError:
            continue  # replaced or removed while the page was made
        if content.startswith(_SIGNATURES[file.suffix]):
            caption = f"{FIGURES.get(name, name)}, round {int(file.stem.rpartition('-')[2])}"
            shown.append(_figure(content, caption, run_files.MEDIA_TYPES[file.suffix]))
    yield f'<div class="figures">\n{"".join(shown)}</div>\n' if shown else "<p>It has none.</p>\n"


def _table(
    corner: str, heads: Iterable[str], rows: Sequence[tuple[str, Sequence[str]]], *, numbers: bool = False
) -> str:
    """A table of HTML cells, the first of each row as its head; wide tables scroll."""
    columns = "".join(f'<th scope="col">{escape(head)}</th>' for head in (corner, *heads))
    body = "".join(
        f'<tr><th scope="row">{head}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n' for head, cells in rows
    )
    kind = ' class="numbers"' if numbers else ""
    return f'<div class="wide"><table{kind}><thead><tr>{columns}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def _figure(content: bytes, caption: str, media_type: str = "image/png") -> str:
    data = base64.b64encode(content).decode("ascii")
    text = escape(caption)
    return f'<figure><img src="data:{media_type};base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>\n'


def _curves(comparison: Comparison, column: Column) -> list[Curve]:
    curves = []
    for place, letter in enumerate(comparison.letters):
        points = [(number, comparison.value(column, place, number)) for number in comparison.rounds]
        known = [(number, value) for number, value in points if value is not None]
        values = tuple(100 * value if column.percent else value for _, value in known)
        curves.append(Curve(letter, tuple(number for number, _ in known), values))
    return curves


def _title(column: Column) -> str:
    return f"{column.title} (percent)" if column.percent else column.title


def _setting(value: Any) -> str:
    if value is ABSENT:
        return '<span class="absent">none</span>'
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _percent(score: RoundScore | None) -> tuple[str, str]:
    return ("", "") if score is None else (f"{100 * score.r1:.2f}", f"{100 * score.map:.2f}")
