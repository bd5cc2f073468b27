"""Reading of caption files: JSON lines, or one dictionary by path; each caption with its place in the file."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from models.modality import Modality
from pipeline.data.listing import json_lines, json_problem
from pipeline.data.tables import column_name
from pipeline.data.values import MAX_DIGITS, MODALITY_NAMES, modality_named, name_or_number
from pipeline.errors import DataError
from pipeline.runtime.text_files import read_text

CAPTION_SCHEMA: Final = "vireid-captions-1"  # `schema` in a file's metadata
BESIDE_IMAGES: Final = "captions.jsonl"  # in the folder of a data set that has captions
FIRST: Final = 10  # offenders named in an error
_MODALITIES: Final = {"v": Modality.VISIBLE, "r": Modality.INFRARED}
_FORM: Final = (
    "a .jsonl file has one object a line with path, modality and caption, a .json file one object by path; "
    "see docs/captions.md"
)
_DRIVE: Final = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One caption of a file, with the file's other entries of the image; None without an entry.

    `place` is for messages, such as `captions.jsonl:12`; whitespace in the caption is collapsed, and it may be empty.
    """

    place: str
    path: str
    caption: str
    modality: Modality | None
    person: int | None
    camera: int | None


def written_captions(runs_folder: Path, name: str) -> Path:
    """Where `vireid caption` writes the captions of a data set, and where training finds them: in the runs folder."""
    return runs_folder / "captions" / f"{name}.jsonl"


def read_caption_rows(path: Path, *, caption_field: str, path_prefix: str) -> list[CaptionRow]:
    """Read a caption file, without comparing it with a data set; paths are relative, POSIX, and inside the root.

    A `.jsonl` file has one object a line: `path`, the caption, optionally `modality` (`visible` or `v`, `infrared` or
    `r`), `person` or `pid`, `camera` or `cam`. A `.json` file is an object from paths to captions or to such objects.
    `path_prefix` is removed from every path.

    Raises:
        DataError: The file is missing, of another form, not UTF-8, or has wrong rows: the first ten are named.
    """
    text = read_text(path, kind="caption file", origin="`vireid caption` writes one")
    match path.suffix.lower():
        case ".jsonl":
            cells, mistakes = _line_cells(path.name, text)
        case ".json":
            cells, mistakes = _dictionary_cells(path.name, text, caption_field)
        case _:
            raise DataError(f"{path}: a caption file is a .jsonl or a .json file", hint=_FORM)
    rows: list[CaptionRow] = []
    for place, values in cells:
        try:
            rows.append(_row(place, values, caption_field, path_prefix))
        except ValueError as error:
            mistakes.append(f"{place}: {error}")
    if mistakes:
        raise DataError(f"{path}: {some_of(mistakes, 'lines that are wrong')}", hint=_FORM)
    if not rows:
        raise DataError(f"{path}: no captions", hint=_FORM)
    return rows


def meta_path(path: Path) -> Path:
    """The metadata of a caption file: `sysu.meta.json` beside `sysu.jsonl`."""
    return path.with_name(f"{path.stem}.meta.json")


def some_of(offenders: Sequence[str], what: str) -> str:
    """The number of offenders, and the first ten of them.

    >>> some_of(["a.jpg", "b.jpg"], "images without a caption")
    'images without a caption: 2 (a.jpg; b.jpg)'
    """
    more = "; ..." if len(offenders) > FIRST else ""
    return f"{what}: {len(offenders):,} ({'; '.join(offenders[:FIRST])}{more})"


def inside_root(path: str) -> str:
    """A normalised path, `a//./b` as `a/b`."""
    plain = str(PurePosixPath(path.replace("\\", "/")))
    if plain == ".":
        raise ValueError("no path")
    if plain.startswith("/") or _DRIVE.match(plain) or ".." in PurePosixPath(plain).parts:
        raise ValueError(f"path must stay inside the data root: {path}")
    return plain


def _line_cells(name: str, text: str) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    cells: list[tuple[str, Mapping[str, Any]]] = []
    mistakes: list[str] = []
    for number, found in json_lines(text.split("\n"), _without_repetition):
        if isinstance(found, dict):
            cells.append((f"{name}:{number}", found))
        else:
            mistakes.append(f"{name}:{number}: {found}")
    return cells, mistakes


def _dictionary_cells(
    name: str, text: str, caption_field: str
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[str]]:
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{name}{line}: not JSON: {json_problem(error)}", hint=_FORM) from error
    if not isinstance(content, dict):
        raise DataError(f"{name}: not a JSON object", hint=_FORM)
    cells: list[tuple[str, Mapping[str, Any]]] = []
    mistakes: list[str] = []
    for path, value in content.items():
        place = f"{name}: {path}"
        if isinstance(value, str):
            cells.append((place, {"path": path, caption_field: value}))
        elif isinstance(value, dict):
            cells.append((place, {**value, "path": path}))
        else:
            mistakes.append(f"{place}: neither a caption nor a JSON object")
    return cells, mistakes


def _row(place: str, values: Mapping[str, Any], caption_field: str, path_prefix: str) -> CaptionRow:
    found = ", ".join(map(repr, values))
    values = {column_name(name): value for name, value in values.items()} | dict(values)
    path = values.get("path")
    if not isinstance(path, str):
        raise ValueError("no path")
    if not path.startswith(path_prefix):
        raise ValueError(f"the path {path} does not begin with {path_prefix}")
    if caption_field not in values:
        raise ValueError(f"no {caption_field!r}; there are: {found}")
    caption = "" if values[caption_field] is None else values[caption_field]
    if not isinstance(caption, str):
        raise ValueError(f"{caption_field} is {caption!r}, not a text")
    return CaptionRow(
        place=place,
        path=inside_root(path.removeprefix(path_prefix)),
        caption=" ".join(caption.split()),
        modality=_modality(values.get("modality")),
        person=_number(values, "person", "pid"),
        camera=_number(values, "camera", "cam"),
    )


def _modality(value: Any) -> Modality | None:
    if value is None:
        return None
    found = _MODALITIES.get(value) or modality_named(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"modality {value!r}; one of {', '.join((*_MODALITIES, *MODALITY_NAMES))}")
    return found


def _number(values: Mapping[str, Any], *names: str) -> int | None:
    """The number under one of these names, `0012` like 12; None for other names of people and cameras."""
    value = next((values[name] for name in names if values.get(name) is not None), None)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str | float):
        return None
    number = name_or_number(str(value))
    return int(number) if number.isdecimal() and len(number) <= MAX_DIGITS else None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated names with different values: JSON permits them, and readers keep one of the values."""
    values = dict(pairs)
    twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    for name in twice:
        if any(value != values[name] for other, value in pairs if other == name):
            raise ValueError(f"{name!r} occurs twice, with different values")
    return values
