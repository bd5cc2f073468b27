"""Rows of a manifest file, CSV or JSON lines, each with its line number."""

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from models.modality import Modality
from pipeline.data.listing import json_lines, read_text
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

REQUIRED = ("path", "modality", "camera", "split")
USED = (*REQUIRED, "person")
KNOWN = (*USED, "caption")
SPLITS = ("train", "val", "query", "gallery", "test")

_FORM = "the first line names the columns path, modality, camera, person, split; see docs/data-sets.md"
_DRIVE = re.compile(r"[A-Za-z]:/")
_NEGATIVE = re.compile(r"-[0-9]+")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_MAX_DIGITS = 18  # what an int64 holds in any case


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a line; line 0 is the file as a whole."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image; `camera` and `person` are texts, whole numbers without leading zeros; an unknown person is empty."""

    line: int
    path: str
    modality: Modality
    camera: str
    person: str
    split: str


def read_rows(path: Path) -> tuple[list[ManifestRow], list[Mistake]]:
    """Read a `.csv` or `.jsonl` manifest: the rows without a mistake, in order, and the mistakes of the others.

    Raises:
        DataError: The file is no manifest at all: missing, of another form, without a row or without a needed column.
    """
    match path.suffix.lower():
        case ".csv":
            cells, mistakes = _csv_cells(path)
        case ".jsonl":
            cells, mistakes = _json_cells(path)
        case _:
            raise DataError(f"{path}: a manifest is a .csv or a .jsonl file", hint="rename it, or convert it")
    rows: list[ManifestRow] = []
    for line, values in cells:
        found = parse_row(line, values)
        if isinstance(found, ManifestRow):
            rows.append(found)
        else:
            mistakes.extend(found)
    if not rows and not mistakes:
        raise DataError(f"{path}: no rows", hint=_FORM)
    return rows, mistakes


def _csv_cells(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Mistake]]:
    reader = csv.reader(io.StringIO(_manifest_text(path), newline=""), strict=True)
    cells: list[tuple[int, dict[str, Any]]] = []
    mistakes: list[Mistake] = []
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1  # a quoted cell may hold line ends: a row begins after the last one's end
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if columns is None:
                raise DataError(f"{path.name}:{line}: not a row of CSV: {error}", hint=_FORM) from error
            mistakes.append(Mistake(line, f"not a row of CSV: {error}"))
            continue
        if not any(value.strip() for value in values):
            continue
        if columns is None:
            columns = [name.strip() for name in values]
            _check_columns(path, columns)
        elif len(values) != len(columns):
            mistakes.append(Mistake(line, f"{len(values)} cells for {len(columns)} columns"))
        else:
            cells.append((line, dict(zip(columns, values, strict=True))))
    if columns is None:
        raise DataError(f"{path}: no rows", hint=_FORM)
    return cells, mistakes


def _json_cells(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Mistake]]:
    cells: list[tuple[int, dict[str, Any]]] = []
    mistakes: list[Mistake] = []
    for line, found in json_lines(io.StringIO(_manifest_text(path), newline=None), _without_repetition):
        if isinstance(found, dict):
            cells.append((line, found))
        else:
            mistakes.append(Mistake(line, found))
    columns = Counter(name for _, values in cells for name in values)
    if cells:
        _check_columns(path, list(columns))
    return cells, mistakes


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON permits repeated names, of which readers keep one value: refuse them."""
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} occurs twice")
    return dict(pairs)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        names = ", ".join(map(repr, missing))
        raise DataError(f"{path.name}: no column {names}; found: {', '.join(columns)}", hint=_FORM)
    twice = [name for name, times in Counter(columns).items() if times > 1 and name in KNOWN]
    if twice:
        raise DataError(f"{path.name}: column {twice[0]!r} occurs twice", hint=_FORM)
    others = [name for name in columns if name not in KNOWN]
    if others:
        logger.info("%s: ignored columns: %s", path.name, ", ".join(map(repr, others)))


def parse_row(line: int, values: Mapping[str, Any]) -> ManifestRow | list[Mistake]:
    """Parse one row (null and missing cells are empty), or return all its mistakes; its image is not opened."""
    texts: dict[str, str] = {}
    mistakes: list[Mistake] = []
    for name in USED:
        value = "" if values.get(name) is None else values[name]
        if isinstance(value, bool) or not isinstance(value, int | str):
            mistakes.append(Mistake(line, f"{name} is {value!r}, not a text or a whole number"))
            continue
        texts[name] = _normalised(name, str(value))
        mistakes += [Mistake(line, message) for message in _problems(name, texts[name])]
    if texts.get("split") in SPLITS[1:] and texts.get("person") == "":
        message = f"{texts['split']} rows need a person (remove such rows to train without evaluation)"
        mistakes.append(Mistake(line, message))
    if mistakes:
        return mistakes
    path, camera, person, split = (texts[name] for name in ("path", "camera", "person", "split"))
    return ManifestRow(line, path, Modality(texts["modality"]), camera, person, split)


def _normalised(column: str, text: str) -> str:
    """One spelling for each value: `./a//b` becomes the path `a/b`, `0012` the person `12`."""
    if column == "path":
        return str(PurePosixPath(text.replace("\\", "/")))
    text = text.strip()
    is_number = column in ("camera", "person") and text.isdecimal() and len(text) <= _MAX_DIGITS
    return str(int(text)) if is_number else text


def _problems(column: str, text: str) -> Iterator[str]:
    if _NO_TEXT.search(text):
        yield f"{column} {text!r} contains a character that is not text"
    match column:
        case "path" if text == ".":
            yield "no path"
        case "path" if text.startswith("/") or _DRIVE.match(text) or ".." in PurePosixPath(text).parts:
            yield f"path must stay inside the root: {text} (--root names another folder for paths to start from)"
        case "modality" if text not in set(Modality):
            yield f"modality {text!r} is not visible or infrared"
        case "split" if text not in SPLITS:
            yield f"split {text!r}; one of {', '.join(SPLITS)}"
        case "camera" if not text:
            yield "no camera (one constant is fine where there is one camera)"
        case "camera" | "person" if _NEGATIVE.fullmatch(text):
            yield f"{column} {text} is negative"
        case "camera" | "person" if text.isdecimal() and len(text) > _MAX_DIGITS:
            yield f"{column} {text} has more than {_MAX_DIGITS} digits"


def _manifest_text(path: Path) -> str:
    return read_text(path, kind="manifest", origin="`vireid data manifest` writes one from folders")
