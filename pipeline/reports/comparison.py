"""Comparison of runs: settings that differ and the metrics of each round; as an HTML page that works offline."""

import base64
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pipeline.config.experiment import recorded_values
from pipeline.errors import CheckpointError, ConfigError
from pipeline.reports import html as html_page
from pipeline.reports.curves import COLOURS, Curve, draw_curves
from pipeline.reports.groups import Group, group_runs, setting_text
from pipeline.storage import layout as run_files
from pipeline.storage.run_reader import RecordedRun, RoundScore

_SIGNATURES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff"}
_FACTS = ("run", "method", "data", "seed", "digest", "rounds", "state", "search", "Rank-1", "mAP", "best Rank-1")
GROUP_HEADS = ("settings", "runs", "round", "Rank-1", "mAP")
"""Column heads of `group_cells`."""

_PICKED = 8
"""Rounds whose figures a page holds: of two demonstration runs about 8 MB."""

FIGURES = {
    "cluster-sizes": "Histogram of cluster sizes",
    "eps-curve": "Clusters at other values of eps",
    "feature-map": "Training features in the plane of their first two principal components",
    "learning-curves": "Losses and results of all rounds so far",
    "pairs": "Matched clusters of visible and infrared images, their most typical images first",
    "prototype-similarity": "Similarity of visible and infrared prototypes",
    "retrieval": "Queries and their most similar gallery images: matches in blue, others crossed out",
    "text-similarity": "Similarity of visible and infrared text prototypes",
}
"""Captions of a round's figures; others are shown under their file names."""


@dataclass(frozen=True, slots=True)
class Column:
    """One metric: its name in each run (None if absent), format specification, and whether it is shown in percent."""

    title: str
    names: tuple[str | None, ...]
    form: str
    percent: bool = False

    def text(self, value: float | None) -> str:
        """The formatted number; empty for None.

        >>> Column("Rank-1", ("test/all/r1",), ".2f", percent=True).text(0.5)
        '50.00'
        """
        return "" if value is None else format(100 * value if self.percent else value, self.form)


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs between runs, with its value in each run; None if a run does not have it."""

    setting: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs, and the metrics by which they are compared."""

    runs: tuple[RecordedRun, ...]
    columns: tuple[Column, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        """A short name per run: A, B, ... Z, AA, AB, ..."""
        return tuple(_letter(place) for place in range(len(self.runs)))

    @property
    def rounds(self) -> tuple[int, ...]:
        """The numbers of all rounds that any run has finished, ascending."""
        return tuple(sorted({number for run in self.runs for number in run.rounds}))

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Every setting that differs, sorted by name, including data folder and device."""
        settings = [recorded_values(run.recorded) for run in self.runs]
        names = sorted({name for one in settings for name in one})
        values = {name: tuple(one.get(name) for one in settings) for name in names}
        return tuple(Difference(name, of) for name, of in values.items() if any(value != of[0] for value in of))

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of runs that differ in seed or split only; empty if every run is a group of its own."""
        groups = group_runs(self.runs)
        return groups if len(groups) < len(self.runs) else ()

    def letters_of(self, group: Group) -> str:
        """The short names of a group's runs."""
        return ", ".join(self.letters[place] for place in group.places)

    def value(self, column: Column, place: int, number: int) -> float | None:
        """A metric of the run at `place` after a round, or None."""
        name = column.names[place]
        value = None if name is None else self.runs[place].rounds.get(number, {}).get(name)
        return value if isinstance(value, (int, float)) else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `rounds` has one value per run for each metric."""
        places = range(len(self.runs))
        return {
            "runs": [run.to_dict() for run in self.runs],
            "groups": [_group(group) for group in self.groups],
            "differences": [{"setting": one.setting, "values": list(one.values)} for one in self.differences],
            "rounds": [
                {"round": number}
                | {column.title: [self.value(column, place, number) for place in places] for column in self.columns}
                for number in self.rounds
            ],
        }


def compare_runs(runs: Sequence[RecordedRun], metrics: Sequence[str] = ()) -> Comparison:
    """Compare runs by their headline searches, losses and seconds.

    `metrics` adds further ones, by their names in `metrics.jsonl` or `timings.jsonl`.

    Raises:
        ConfigError: No run, or an unknown metric.
        CheckpointError: A run has no finished round.
    """
    if not runs:
        raise ConfigError("no run to compare", hint="name at least one run; `vireid runs` lists them")
    for run in runs:
        if not run.rounds:
            raise CheckpointError(
                f"{run.path} has no finished round yet", hint="wait for its first round, or omit this run"
            )
    headlines = [run.headline for run in runs]
    columns = [
        Column("Rank-1", tuple(name and f"{name}/r1" for name in headlines), ".2f", percent=True),
        Column("mAP", tuple(name and f"{name}/map" for name in headlines), ".2f", percent=True),
        Column("loss", ("train/loss/total",) * len(runs), ".3f"),
        Column("seconds", ("seconds/total",) * len(runs), ".1f"),
    ]
    known = {name for run in runs for row in run.rounds.values() for name in row if name not in run_files.ROW_LABELS}
    for name in dict.fromkeys(metrics):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)[:3]
            raise ConfigError(f"no run has a metric {name!r}", hint=f"similar metrics: {', '.join(near)}")
        columns.append(Column(name, (name,) * len(runs), ".4g"))
    return Comparison(tuple(runs), tuple(columns))


def _group(group: Group) -> dict[str, Any]:
    """A group as plain JSON types."""
    record: dict[str, Any] = {"label": group.label, "runs": [str(run.path) for run in group.runs]}
    scores = group.scores()
    if scores is not None:
        record |= {"round": scores[0], "r1": scores[1].to_dict(), "map": scores[2].to_dict()}
    return record


def group_cells(group: Group) -> tuple[str, ...]:
    """Label, seeds and splits, round, Rank-1 and mAP of a group, as text."""
    scores = group.scores()
    numbers = ("", "", "") if scores is None else (str(scores[0]), scores[1].text(), scores[2].text())
    return group.label, group.varied, *numbers


def _letter(place: int) -> str:
    """A for 0, Z for 25, AA for 26.

    >>> [_letter(place) for place in (0, 25, 26, 52)]
    ['A', 'Z', 'AA', 'BA']
    """
    first, last = divmod(place, 26)
    return (_letter(first - 1) if first else "") + chr(ord("A") + last)


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page: runs and their groups, settings that differ, rounds, learning curves, figures beside each other.

    Raises:
        ConfigError: The file cannot be written, or exists and is not a page.

    Cost: about 0.2 s and 30 KB per curve, and 4/3 of the bytes of the figures of eight rounds.
    """
    html_page.write_page(file, _page(comparison))


def _page(comparison: Comparison) -> Iterator[str]:
    shown = _shown_rounds(comparison)
    yield html_page.page_start("Runs compared", _picker_style(shown))
    yield from _runs(comparison)
    yield from _groups(comparison)
    yield from _settings(comparison)
    yield from _rounds(comparison)
    yield '<h2>Learning curves</h2>\n<div class="figures">\n'
    for column in comparison.columns:
        yield _figure(draw_curves(_curves(comparison, column), _title(column)), _title(column))
    yield "</div>\n"
    yield from _figures(comparison, shown)
    yield html_page.page_end()


def _runs(comparison: Comparison) -> Iterator[str]:
    rows = []
    for place, (letter, run) in enumerate(zip(comparison.letters, comparison.runs, strict=True)):
        last, best = run.scores[-1] if run.scores else None, run.best
        facts = [run.name, run.method, run.data, str(run.config.seed), run.digest]
        facts += [f"{len(run.rounds)} of {run.planned}", run.state, run.headline or ""]
        facts += [*_percent(last), "" if best is None else f"{_percent(best)[0]} in round {best.round}"]
        mark = f'<span class="mark" style="background:{COLOURS[place % len(COLOURS)]}"></span>'
        rows.append((mark + escape(letter), [escape(fact) for fact in facts]))
    yield _table("", _FACTS, rows)
    yield "<p>Rank-1 and mAP, in percent, are of the search named, after the last evaluated round. The best round is "
    yield "not a result: it is selected on the test set.</p>\n"


def _groups(comparison: Comparison) -> Iterator[str]:
    rows = [(escape(comparison.letters_of(group)), [*map(escape, group_cells(group))]) for group in comparison.groups]
    if rows:
        yield "<h2>Runs that differ in seed or split only</h2>\n"
        yield _table("", GROUP_HEADS, rows)
        yield "<p>Mean ± standard deviation over the runs of a row, in percent, after the last round in which all of "
        yield "them were evaluated.</p>\n"


def _settings(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Settings that differ</h2>\n"
    rows = [(escape(one.setting), [_setting(value) for value in one.values]) for one in comparison.differences]
    if rows:
        yield _table("setting", comparison.letters, rows)
    else:
        yield "<p>None.</p>\n" if len(comparison.runs) > 1 else "<p>Only one run.</p>\n"


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


def _shown_rounds(comparison: Comparison) -> tuple[int, ...]:
    """Rounds with figures, at most `_PICKED` spread over all; of many, those in which a run was evaluated."""
    drawn = sorted({number for run in comparison.runs for number in run_files.figures_of_rounds(run.path)})
    if len(drawn) > _PICKED:
        evaluated = {score.round for run in comparison.runs for score in run.scores}
        drawn = [number for number in drawn if number in evaluated] or drawn
    if len(drawn) > _PICKED:
        drawn = [drawn[round(place * (len(drawn) - 1) / (_PICKED - 1))] for place in range(_PICKED)]
    return tuple(drawn)


def _picker_style(shown: Sequence[int]) -> str:
    """The chosen round alone is visible: a page that runs no script has no other way."""
    rules = [f"#round-{number}:checked ~ .round-{number}" for number in shown]
    return f"{', '.join(rules)} {{ display: block; }}\n" if rules else ""


def _figures(comparison: Comparison, shown: Sequence[int]) -> Iterator[str]:
    """Figures of the runs beside each other, with a picker for the round."""
    yield "<h2>Figures</h2>\n"
    if not shown:
        yield "<p>None.</p>\n"
        return
    yield '<div class="picker">Round:\n'
    for number in shown:
        checked = " checked" if number == shown[-1] else ""
        yield f'<input type="radio" name="round" id="round-{number}"{checked}>'
        yield f'<label for="round-{number}">{number}</label>\n'
    figures = [run_files.figures_of_rounds(run.path) for run in comparison.runs]
    for number in shown:
        yield f'<section class="round-{number}">\n'
        for name in sorted({name for of_run in figures for name in of_run.get(number, ())}):
            yield f'<h3>{escape(FIGURES.get(name, name))}, round {number}</h3>\n<div class="figures">\n'
            for letter, run, of_run in zip(comparison.letters, comparison.runs, figures, strict=True):
                yield _figure_of(f"{letter}, {run.name}", of_run.get(number, {}).get(name))
            yield "</div>\n"
        yield "</section>\n"
    yield "</div>\n"


def _figure_of(caption: str, file: Path | None) -> str:
    """A figure of a run; nothing if it has none, or one that is damaged or was removed meanwhile."""
    try:
        content = b"" if file is None else file.read_bytes()
    except OSError:
        content = b""
    if file is None or not content.startswith(_SIGNATURES[file.suffix]):
        return ""
    return _figure(content, caption, run_files.MEDIA_TYPES[file.suffix])


def _table(
    corner: str, heads: Iterable[str], rows: Sequence[tuple[str, Sequence[str]]], *, numbers: bool = False
) -> str:
    """A table of HTML cells with row headings; wide tables scroll."""
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
    if value is None:
        return '<span class="absent">none</span>'
    return escape(setting_text(value))


def _percent(score: RoundScore | None) -> tuple[str, str]:
    return ("", "") if score is None else (f"{100 * score.r1:.2f}", f"{100 * score.map:.2f}")
