"""Rows of a manifest file, CSV or JSON lines, each with its line number."""

import io
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from models.modality import Modality
from pipeline.data.listing import json_lines
from pipeline.data.tables import column_name, read_table
from pipeline.data.values import modality_named, moment, name_or_number, value_problem
from pipeline.errors import DataError
from pipeline.runtime.names import plain
from pipeline.runtime.text_files import read_text

logger = logging.getLogger(__name__)

REQUIRED = ("path", "modality", "camera", "split")
USED = (*REQUIRED, "person", "track", "time", "images_root")
KNOWN = (*USED, "caption")
SPLITS = ("train", "val", "query", "gallery", "test")

_FORM = (
    "the first line names the columns path, modality, camera, person, split; see docs/data-sets.md "
    "(a mere list of paths is a .txt file)"
)
_DRIVE = re.compile(r"[A-Za-z]:/")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
UNWRITABLE = "images have names that a manifest cannot hold"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a line; line 0 is the file as a whole. Many mistakes of one `kind` are shown as a number."""

    line: int
    message: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image; `camera` and `person` are texts, whole numbers without leading zeros; what is unknown is empty.

    `track` names consecutive crops of one passing person by one camera; `time` is ISO 8601; `images_root` is the folder
    that paths start from, if it is not the manifest's.
    """

    line: int
    path: str
    modality: Modality
    camera: str
    person: str
    split: str
    track: str = ""
    time: str = ""
    images_root: str = ""


def read_rows(path: Path) -> tuple[list[ManifestRow], list[Mistake]]:
    """Read a `.csv`, `.tsv` or `.jsonl` manifest: the rows without a mistake, in order, and the mistakes of the others.

    Raises:
        DataError: The file is no manifest at all: missing, of another form, without a row or without a needed column.
    """
    match path.suffix.lower():
        case ".csv" | ".tsv":
            cells, mistakes = _csv_cells(path)
        case ".jsonl":
            cells, mistakes = _json_cells(path)
        case _:
            hint = "save a spreadsheet as CSV in UTF-8"
            raise DataError(f"{path}: a manifest is a .csv or a .jsonl file", hint=hint)
    rows: list[ManifestRow] = []
    for line, values in cells:
        found = parse_row(line, values)
        if isinstance(found, ManifestRow):
            rows.append(found)
        else:
            mistakes.extend(found)
    if not rows and not mistakes:
        raise DataError(f"{path}: no rows", hint=_FORM)
    return _with_times(path, rows), mistakes


def _with_times(path: Path, rows: list[ManifestRow]) -> list[ManifestRow]:
    """The rows, without times that are not ISO 8601; their number is logged."""
    unknown = [row.line for row in rows if row.time and not _is_time(row.time)]
    if not unknown:
        return rows
    example = "2026-11-28T14:03:00"
    logger.info("%s: ignored times that are not like %s: %d, first: line %d", path, example, len(unknown), unknown[0])
    skipped = frozenset(unknown)
    return [replace(row, time="") if row.line in skipped else row for row in rows]


def _csv_cells(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Mistake]]:
    table = read_table(path.name, _manifest_text(path), REQUIRED, _FORM)
    if table is None:
        raise DataError(f"{path}: no rows", hint=_FORM)
    _check_columns(path, table.columns)
    cells = [(line, dict(zip(table.columns, row, strict=True))) for line, row in table.rows]
    return cells, [Mistake(line, message, "cells") for line, message in table.faults]


def _json_cells(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Mistake]]:
    cells: list[tuple[int, dict[str, Any]]] = []
    mistakes: list[Mistake] = []
    for line, found in json_lines(io.StringIO(_manifest_text(path), newline=None), _without_repetition):
        if isinstance(found, dict):
            cells.append((line, found))
        else:
            mistakes.append(Mistake(line, found, "json"))
    columns = Counter(name for _, values in cells for name in values)
    if cells:
        _check_columns(path, list(columns))
    return cells, mistakes


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON permits repeated names, of which readers keep one value: refuse them. Names are those of columns."""
    pairs = [(column_name(name), value) for name, value in pairs]
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} occurs twice")
    return dict(pairs)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        names = ", ".join(map(repr, missing))
        raise DataError(f"{path.name}: no column {names}; found: {', '.join(map(_shown, columns))}", hint=_FORM)
    twice = [name for name, times in Counter(columns).items() if times > 1 and name in KNOWN]
    if twice:
        raise DataError(f"{path.name}: column {twice[0]!r} occurs twice", hint=_FORM)
    others = [name for name in columns if name and name not in KNOWN]
    if others:
        logger.info("%s: ignored columns: %s", path.name, ", ".join(map(repr, others)))


def parse_row(line: int, values: Mapping[str, Any]) -> ManifestRow | list[Mistake]:
    """Parse one row (null and missing cells are empty), or return all its mistakes; its image is not opened."""
    texts: dict[str, str] = {}
    mistakes: list[Mistake] = []
    for name in USED:
        value = _text(values.get(name))
        if value is None:
            mistakes.append(Mistake(line, f"{name} is {values[name]!r}, not a text or a whole number", f"{name} type"))
            continue
        texts[name] = _normalised(name, value)
        mistakes += [Mistake(line, message, f"{name} {kind}") for kind, message in _problems(name, texts[name])]
    if texts.get("split") in SPLITS[1:] and texts.get("person") == "":
        message = f"{texts['split']} rows need a person (remove such rows to train without evaluation)"
        mistakes.append(Mistake(line, message, message))
    if mistakes:
        return mistakes
    return ManifestRow(line, **texts | {"modality": Modality(texts["modality"])})  # type: ignore[arg-type]


def is_writable(path: str) -> bool:
    r"""Whether a manifest gives the path of a file back as it is.

    >>> is_writable("cam1/a b.jpg"), is_writable("a\\b.jpg"), is_writable("a\rb.jpg"), is_writable("\udcff.jpg")
    (True, False, False, False)
    """
    return not _NO_TEXT.search(path) and "\r" not in path and _normalised("path", path) == path


def _text(value: Any) -> str | None:
    """The text of a cell; whole floats are integers, NaN and null are empty; None for other types."""
    if isinstance(value, float) and (math.isnan(value) or value.is_integer()):
        value = None if math.isnan(value) else int(value)
    if value is None:
        return ""
    return None if isinstance(value, bool) or not isinstance(value, int | str) else str(value)


def _normalised(column: str, text: str) -> str:
    """One spelling for each value: `./a//b` becomes the path `a/b`, `0012` the person `12`, `IR` is `infrared`."""
    match column:
        case "path":
            return str(PurePosixPath(text.replace("\\", "/")))
        case "images_root":
            return text
        case "modality":
            return str(modality_named(text) or text)
        case "split":
            return plain(text).lower()
    return name_or_number(text)


def _problems(column: str, text: str) -> Iterator[tuple[str, str]]:
    """Kind and description of each problem of a cell."""
    if _NO_TEXT.search(text):
        yield "characters", f"{column} {text!r} contains a character that is not text"
    match column:
        case "path" if text == ".":
            yield "absent", "no path"
        case "path" if text.startswith("/") or _DRIVE.match(text) or ".." in PurePosixPath(text).parts:
            outside = f"path must stay inside the root: {text} (--root names another folder for paths to start from)"
            yield "outside", outside
        case "modality" if text not in set(Modality):
            yield "unknown", f"modality {text!r} is not visible or infrared"
        case "split" if text not in SPLITS:
            yield "unknown", f"split {text!r}; one of {', '.join(SPLITS)}"
        case "camera" if not text:
            yield "absent", "no camera (one constant is fine where there is one camera)"
        case "camera" | "person" if (problem := value_problem(text)) is not None:
            yield problem, f"{column} {text} {problem}"


def _is_time(text: str) -> bool:
    try:
        moment(text)
    except (ValueError, OverflowError):
        return False
    return True


def _shown(name: str) -> str:
    """A column's name, with escapes if it holds what cannot be seen."""
    return name if name and plain(name) == name and name.isprintable() else ascii(name)


def _manifest_text(path: Path) -> str:
    return read_text(path, kind="manifest", origin="`vireid data manifest` writes one from folders")
