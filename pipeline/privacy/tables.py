"""Tables, JSON and pages that name images: rows and entries are dropped, pages with pictures removed."""

import codecs
import fcntl
import html
import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.config.datasets import TABLES
from pipeline.data.datasets.manifest.rows import REQUIRED
from pipeline.data.listing import json_lines
from pipeline.data.tables import column_name, read_table
from pipeline.errors import CheckpointError, DataError
from pipeline.privacy.forms import JSON_FILES, LINES, PAGES, text_ending
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Trace
from pipeline.reports.comparison import FIGURES
from pipeline.runtime import atomic_files
from pipeline.runtime.text_files import read_text
from pipeline.storage.layout import PHOTOGRAPHS

Match = Callable[[str], bool]

_PATH_COLUMNS = frozenset({"path", "query", "hit", "image", "visible_typical", "infrared_typical"})
# Columns, or keys of JSON, by which tables of this program are known.
_OURS = (
    {"query", "hit", "mark"}, {"encoder", "path"},
    {"visible", "infrared", "similarity"}, {"path", "modality", "caption"}, {"path", "modality", "error"},
    {"index", "gallery", "queries"}, {"search", "modality", "queries", "worst"}, {"run", "round", "pairs"},
    {"versions", "skipped"},
)  # fmt: skip
_ALTERNATIVE = re.compile(r'(?:alt|title)="([^"]*)"|<h2>([^<]*)</h2>')
_SEPARATORS = re.compile(r"[,;\t|\"\r\n]")
_HINT = "correct the file or remove it, and repeat the command"
_TABLES = tuple(ending for ending in TABLES if ending not in LINES)


def text_traces(
    file: Path, names: ImageNames, unclear: list[str], runs: Iterable[str], *, named: bool
) -> Iterator[Trace]:
    """The trace of a table, a JSON file or a page.

    `runs` are names of runs that used the images, for pages with their panels. A file of another program is changed
    only if the user `named` it, manifests never: `unclear` receives a sentence about these.

    Raises:
        DataError: The file cannot be read.
    """
    suffix = text_ending(file)
    assert suffix is not None, file
    if suffix in PAGES:
        yield from _page_traces(file, names, runs)
        return
    keys, count = _read(file, suffix, names)
    if not count:
        return
    if keys >= set(REQUIRED):
        unclear.append(f"{file} is a manifest that names {count:,} of them; it is kept")
    elif not named and not any(keys >= ours for ours in _OURS):
        unclear.append(f"{file} names {count:,} of them; it is no file of this program, and kept")
    else:
        yield Trace(
            file, "rows of a table" if suffix in _TABLES else "entries", count, "rewritten without them",
            lambda: _drop_named(file, suffix, names),
        )  # fmt: skip


def _drop_named(file: Path, suffix: str, names: ImageNames) -> None:
    with _alone(file):
        if suffix in JSON_FILES:
            atomic_files.write_json(file, without(_json(file), names.match_text))
            return
        rows = _rows(file, suffix, _text(file))
        _drop_rows(file, suffix, [line for line, row in rows if names_in(row, names.match_text)])


def drop_lines(file: Path, lines: Iterable[int]) -> None:
    """Rewrite a table or a file of JSON lines without the rows that begin at these lines; others keep their bytes.

    Raises:
        CheckpointError: Another process writes it, or it cannot be written.
        DataError: It cannot be read.
    """
    with _alone(file):
        _drop_rows(file, file.suffix.lower(), lines)


def _drop_rows(file: Path, suffix: str, dropped: Iterable[int]) -> None:
    text = _text(file)
    lines, starts = _lines(text), [line for line, _ in _rows(file, suffix, text)]
    ends = dict(zip(starts, [*starts[1:], len(lines) + 1], strict=True))
    gone = {number for line in dropped for number in range(line, ends[line])}
    mark = codecs.BOM_UTF8 if file.read_bytes().startswith(codecs.BOM_UTF8) else b""
    content = mark + "".join(line for number, line in enumerate(lines, start=1) if number not in gone).encode()

    def write(opened: BinaryIO) -> None:
        opened.write(content)

    atomic_files.replace_file(file, write)


def names_in(content: Any, match: Match) -> list[str]:
    """The texts of a JSON value that name images, at any depth, also as keys."""
    if isinstance(content, str):
        return [content] if match(content) else []
    parts: Iterable[Any] = content if _is_list(content) else ()
    if isinstance(content, dict):
        parts = [*content, *content.values()]
    return [name for part in parts for name in names_in(part, match)]


def without(content: Any, match: Match) -> Any:
    """A JSON value without the entries of its lists, and without the keys of its objects, that name images.

    An entry is a text, or an object that names one itself or in a list of texts, whose other lists are numbered alike.

    >>> without({"queries": [{"path": "a", "hits": [{"path": "b"}, {"path": "c"}]}]}, lambda name: name == "b")
    {'queries': [{'path': 'a', 'hits': [{'path': 'c'}]}]}
    """
    if isinstance(content, dict):
        return {key: without(value, match) for key, value in content.items() if not match(key)}
    if _is_list(content):
        return [without(entry, match) for entry in content if not _names(entry, match)]
    return content


def _names(entry: Any, match: Match) -> bool:
    if isinstance(entry, dict):
        return any(
            _names(value, match) if isinstance(value, str) else _is_list(value) and any(map(_text_match(match), value))
            for value in entry.values()
        )
    return isinstance(entry, str) and match(entry)


def _text_match(match: Match) -> Match:
    return lambda value: isinstance(value, str) and match(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _read(file: Path, suffix: str, names: ImageNames) -> tuple[set[str], int]:
    """The columns or keys of a file, and the number of its rows that name images to forget."""
    if suffix in JSON_FILES:
        content = _json(file)
        return set(content), len(names_in(content, names.match_text))
    text = _text(file)
    rows = _rows(file, suffix, text)
    if suffix in _TABLES:
        table = read_table(file.name, text, _PATH_COLUMNS, _HINT)
        keys = set() if table is None else set(table.columns)
    else:
        keys = {column_name(key) for _, row in rows[:1] if isinstance(row, dict) for key in row}
    return keys, sum(bool(names_in(row, names.match_text)) for _, row in rows)


def _text(file: Path) -> str:
    return read_text(file, kind="table", origin=_HINT)


def _json(file: Path) -> dict[str, Any]:
    try:
        return atomic_files.read_json(file) or {}
    except CheckpointError as error:
        raise DataError(error.message, hint=_HINT) from error


def _rows(file: Path, suffix: str, text: str) -> list[tuple[int, Any]]:
    """Line and values of each row; of a faulty one its parts, so that it is dropped if it names an image."""
    if suffix in _TABLES:
        table = read_table(file.name, text, _PATH_COLUMNS, _HINT)
        rows = [] if table is None else [*((line, list(cells)) for line, cells in table.rows), *table.faults]
    else:
        rows = list(json_lines(_lines(text), dict))
    lines = _lines(text)
    return sorted(
        ((line, _SEPARATORS.split(lines[line - 1]) if isinstance(values, str) else values) for line, values in rows),
        key=lambda row: row[0],
    )


def _lines(text: str) -> list[str]:
    return io.StringIO(text, newline="").readlines()


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold the lock of a file that other commands of ours append to."""
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"another process writes {file}", hint="wait until it ends") from error
        yield


def _page_traces(file: Path, names: ImageNames, runs: Iterable[str]) -> Iterator[Trace]:
    page = file.read_text(encoding="utf-8", errors="replace")
    shown = {html.unescape(a or b) for a, b in _ALTERNATIVE.findall(page)}
    # The text of an image on a page of `vireid look` continues with its similarity or rank.
    count = len({text for text in shown if names.match(text) or any(map(names.match, _starts(text)))})
    # A page of `vireid compare` has panels: a heading for each, and the names of runs below.
    panels = any(html.escape(FIGURES[name]) in page for name in PHOTOGRAPHS)
    if count or (panels and any(text.endswith(f", {run}") for run in runs for text in shown)):
        yield Trace(file, "a page with pictures", count or None, "removed", lambda: file.unlink(missing_ok=True))


def _starts(text: str) -> Iterator[str]:
    for found in re.finditer(", ", text):
        yield text[: found.start()]
