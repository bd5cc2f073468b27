"""Lists of paths as programs write them: quotation marks, backslashes, `file://`, `~`, text behind a path."""

import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import DataError
from pipeline.runtime.names import FileNames, plain, spelling_notes
from pipeline.runtime.text_files import read_text

logger = logging.getLogger(__name__)

_FORM = "it has a path a line, from the list's own folder, or absolute"
_BEHIND = re.compile(r"[\s,;|]+")
_QUOTED = re.compile(r"""(["'])(.+?)\1(?:[\s,;|].*)?""")
_HEADER = re.compile(r"(?:path|image|file|filename|image_path)(?:[\s,;|].*)?", re.IGNORECASE)
_MOST_PARTS = 8


def read_path_list(file: Path, root: Path, *, may_be_gone: bool = False) -> tuple[str, ...]:
    """The distinct paths of a list, in its order, each as it is on disk; one without a file stays as it is written.

    Paths start from `root` or are absolute. Blank lines, and lines that begin with `#`, are skipped. What is not the
    name of a file is read without quotation marks, with slashes for backslashes, and without text behind the path.

    Raises:
        DataError: The list is missing or no text, a line has a NUL character, or no path is that of a file, unless
            all of them `may_be_gone`.
    """
    text = read_text(file, kind="list of images", origin=_FORM)
    numbered = enumerate(io.StringIO(text, newline=None), start=1)
    lines = [(number, line.strip()) for number, line in numbered if plain(line) and not plain(line).startswith("#")]
    if lines and _HEADER.fullmatch(lines[0][1]) and not _is_file(root, lines[0][1]):
        lines = lines[1:]
    names = FileNames(root)
    paths: list[str] = []
    renamed: list[tuple[str, str]] = []
    labelled: list[str] = []
    missing: list[str] = []
    for number, line in lines:
        if "\0" in line:
            raise DataError(f"{file}:{number}: {line[:80]!r} contains a NUL character", hint="save the list as text")
        readings = [(line, line), *((one, _path_of(one)) for one in _readings(line))]
        found = next(((part, path) for part, path in readings if _is_file(root, path)), None)
        if found is None:
            alike = ((part, path, names.find(path)) for part, path in readings)
            part, path, other = next((one for one in alike if one[2] is not None), (line, _path_of(line), None))
            missing += [line] if other is None else []
            renamed += [] if other is None else [(path, other)]
            found = part, other or path
        labelled += [line] if found[0] != line else []
        paths.append(found[1])
    for note in spelling_notes(renamed, "paths"):
        logger.info("%s: %s", file.name, note)
    if labelled:
        logger.info("%s: text behind the path is ignored in %d lines: %.80r", file.name, len(labelled), labelled[0])
    if paths and len(missing) == len(paths) and not may_be_gone:
        raise _nothing(file, root, missing)
    return tuple(dict.fromkeys(paths))


def _readings(line: str) -> Iterator[str]:
    """Parts of a line that may be its path: the line, its quoted beginning, and what is before a separator."""
    yield line
    if (quoted := _QUOTED.fullmatch(line)) is not None:
        yield quoted[2]
    for gap in list(_BEHIND.finditer(line))[: -_MOST_PARTS - 1 : -1]:
        if gap.start():
            yield line[: gap.start()]


def _path_of(text: str) -> str:
    """The path that a text stands for: without quotation marks and `file://`, `~` as the home folder, with slashes."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    if text.lower().startswith("file:"):
        text = unquote(urlsplit(text).path)
    return os.path.expanduser(text.replace("\\", "/"))  # noqa: PTH111 - `./~` is no home folder


def _is_file(root: Path, path: str) -> bool:
    try:
        return (root / path).is_file()
    except OSError:  # a name that is too long
        return False


def _nothing(file: Path, root: Path, lines: list[str]) -> DataError:
    parts = [part for part in _readings(lines[0]) if re.search(r"\.\w{2,5}$", part)]
    more = "" if parts[:1] == lines[:1] or not parts else f"; a line may be more than a path: {parts[-1]!r} is one"
    return DataError(
        f"none of {len(lines):,} paths in {file} is a file below {root}, first: {lines[0][:200]!r}{more}",
        hint="a line is the path of an image, from the list's folder or from --root, or absolute",
    )
