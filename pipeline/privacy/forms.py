"""What a file is, by its content: outputs of this program may have any name."""

from enum import Enum
from pathlib import Path

from models.file_kinds import CUT_ZIP, JSON, NPY, NPZ, PARQUET, SQLITE, what_is
from pipeline.config.datasets import TABLES
from pipeline.runtime import outputs
from pipeline.runtime.atomic_files import TEMPORARY

LINES, JSON_FILES, PAGES = (".jsonl",), (".json",), (".html", ".htm")
TEXTS = (*TABLES, *JSON_FILES)
"""Endings of texts that are searched, also of other programs; other texts are recognised by their content."""
OLD = ".old"
ARCHIVES = (".npz", f".npz{TEMPORARY}")

_DATABASES = {PARQUET: (outputs.PARQUET, outputs.PARQUET_FEATURES), SQLITE: (outputs.SQLITE,)}
_TABLES = (outputs.HITS.csv, outputs.VECTORS.csv, outputs.PAIRS, outputs.FEEDBACK, outputs.MANIFEST)
_FIRST = 4096


class Form(Enum):
    """How a file is searched."""

    ARCHIVE = "arrays, which may have paths"
    DATABASE = "a table of this program as Parquet or SQLite"
    TEXT = "a table, JSON, or a page of this program"
    NAMELESS = "empty, or numbers of this program without a name"
    LEFT = "left by a killed command"
    OTHER = "something else: not searched"


def form_of(file: Path) -> Form:
    """The form of a file.

    Raises:
        OSError: It cannot be read.

    Cost: reads its beginning; of a zip archive also the list of names, of a Parquet table the last megabyte.
    """
    with file.open("rb") as opened:
        first = opened.read(_FIRST)
    kind = what_is(file).name
    if not first or (kind == NPY and outputs.LABELS.recognise(file)):
        return Form.NAMELESS
    if kind == NPZ or file.name.endswith(ARCHIVES):
        return Form.ARCHIVE
    if any(one.recognise(file) for one in _DATABASES.get(kind, ())):
        return Form.DATABASE
    if (b"\0" not in first or _ending(file) in TEXTS) and text_ending(file) is not None:
        return Form.TEXT
    is_archive = kind == CUT_ZIP and b".npy" in first[:100]  # the name of its first array
    if file.name.startswith(".") and file.name.endswith(TEMPORARY) and (is_archive or kind in _DATABASES):
        return Form.LEFT
    return Form.OTHER


def text_ending(file: Path) -> str | None:
    """The usual ending of a text with the content of a file, whatever its name; None for what is not searched."""
    if outputs.PAGE.recognise(file):
        return PAGES[0]
    if any(one.recognise(file) for one in _TABLES):
        return TABLES[0]
    if _ending(file) in TEXTS:
        return _ending(file)
    return _json_ending(file) if what_is(file).name == JSON else None


def _ending(file: Path) -> str:
    return Path(file.name.removesuffix(OLD)).suffix.lower()


def _json_ending(file: Path) -> str:
    """Lines of JSON have an object in the first line and begin another one in the second."""
    with file.open("rb") as opened:
        first, second = opened.readline(), opened.readline()
    is_lines = first.rstrip().endswith(b"}") and second.lstrip().startswith(b"{")
    return LINES[0] if is_lines else JSON_FILES[0]
