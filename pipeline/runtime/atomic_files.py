"""Atomic file replacement: written beside the target, synced, and renamed."""

import errno
import functools
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from models.file_kinds import ARCHIVE_ERRORS, CUT_ZIP, UNNAMED, excess, what_is
from pipeline.errors import CheckpointError

T = TypeVar("T")
TEMPORARY = ".tmp"
_FROM_A_COPY = "restore it from a copy, or remove it to start this run again from its first round"
_AGAIN = "restore it from a copy, or start this run again in a new folder"
_LARGEST_JSON = 2**28
_LARGEST_LINES = 2**31
_DEEPEST = 40  # levels of JSON; none of our files has more than eight


def replace_file(path: Path, write: Callable[[BinaryIO], object], *, archive: bool = False) -> None:
    """Replace a file's content completely, or not at all; an `archive` is verified before the rename.

    Raises:
        CheckpointError: The disk is full, failed, or returned other bytes. The old content is untouched.

    Cost: old and new content on disk for a moment; one write, and one read for an archive.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if archive:
            check_archive(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError, CheckpointError) as error:
        # torch's writer raises a RuntimeError for a failed write, while handling the OSError.
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, (OSError, CheckpointError)):
            raise
        raise _unwritten(path, cause) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Where the next content of a file is written: a hidden file beside it, never a name that a user would choose."""
    return path.with_name(f".{path.name}{TEMPORARY}")


def keep_file(source: Path, path: Path) -> None:
    """Give an archive a second name that survives its replacement: a hard link, or a copy if the disk has none.

    Raises:
        CheckpointError: The disk is full or failed. An older file of that name is untouched.
    """
    if path.exists() and path.samefile(source):
        return
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:  # not on this kind of disk
        replace_file(path, lambda file: copy_file(source, file), archive=True)
        return
    temporary.replace(path)
    _sync_folder(path.parent)


def check_archive(path: Path, hint: str = _FROM_A_COPY) -> None:
    """Verify every checksum of a zip archive, because torch does not; first that it claims no more than it has.

    Raises:
        CheckpointError: The archive is truncated, changed or something else.

    Cost: one read of the file; about a second a gigabyte.
    """
    try:
        damaged = excess(path)
        if damaged is None:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
    except zipfile.BadZipFile:
        kind = what_is(path)
        damaged = "its end is missing" if kind.name in (*UNNAMED, CUT_ZIP) else f"it is {kind}"
    except ARCHIVE_ERRORS as error:
        damaged = str(error).partition("\n")[0] or type(error).__name__
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged ({_size(path)}; {damaged})", hint=hint)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Replace a JSON file and return its path; infinite and undefined numbers become null. Raises as `replace_file`."""
    _write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a file of JSON lines, one a row; infinite and undefined numbers become null. Raises as `replace_file`."""
    _write_text(path, "".join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None without a file.

    Raises:
        CheckpointError: The file is not a JSON object, cannot be read, or is too large.
    """
    content = _content(path, _LARGEST_JSON)
    return None if content is None else _parse(path, [content])[0]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; empty without a file.

    Raises:
        CheckpointError: A line is not a JSON object; and as `read_json`.
    """
    content = _content(path, _LARGEST_LINES)
    return [] if content is None else _parse(path, content.splitlines())


def checked(kind: type[T], content: Any, path: Path, hint: str = _AGAIN) -> T:
    """The content of a file as a dataclass, whose types it must have; other parts are ignored.

    Raises:
        CheckpointError: A part is missing or of another type; it names `path`, with the `hint`.
    """
    try:
        found: T = _adapter(kind).validate_python(content)  # type: ignore[arg-type]  # a class is hashable
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        raise CheckpointError(f"{path} is damaged: {place or 'it'}: {first['msg'].lower()}", hint=hint) from error
    return found


def plain(value: Any) -> Any:
    """The value in JSON's types, which have neither tuples nor infinite or undefined numbers.

    >>> plain({"eps": (0.5, float("nan"))})
    {'eps': [0.5, None]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def _unwritten(path: Path, cause: OSError | CheckpointError) -> CheckpointError:
    if isinstance(cause, CheckpointError):
        what, remedy = "the disk returned other bytes than were written", "check the disk"
    else:
        what = cause.strerror or str(cause)
        remedy = "free some space" if cause.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"
    return CheckpointError(
        f"{path} could not be written: {what}", hint=f"{remedy} and start the run again: earlier files are intact"
    )


def _write_text(path: Path, text: str) -> None:
    def write(file: BinaryIO) -> None:
        # Undecodable bytes of a file name are written as escapes, which JSON reads back.
        file.write(text.encode(errors="backslashreplace"))

    replace_file(path, write)


def _content(path: Path, largest: int) -> bytes | None:
    kind = what_is(path)
    if kind.is_missing:
        return None
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointError(f"{path} is {kind}, not a file", hint=_AGAIN)
        if size > largest:
            raise CheckpointError(f"{path} is damaged: it has {size:,} bytes", hint=_AGAIN)
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}", hint="check the permissions of its files"
        ) from error


def _parse(path: Path, texts: Sequence[bytes]) -> list[dict[str, Any]]:
    try:
        values = [json.loads(text, parse_int=_integer) for text in texts]
    except RecursionError as error:
        raise CheckpointError(f"{path} is damaged: it is nested too deeply", hint=_AGAIN) from error
    except ValueError as error:  # no JSON, or no text
        kind = what_is(path)
        reason = f"it is {kind}" if kind.name not in UNNAMED else str(error)
        raise CheckpointError(f"{path} is damaged: {reason}", hint=_AGAIN) from error
    if not all(isinstance(value, dict) for value in values):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object", hint=_AGAIN)
    if any(_is_deep(value, _DEEPEST) for value in values):
        raise CheckpointError(f"{path} is damaged: it is nested too deeply", hint=_AGAIN)
    return values


def _integer(text: str) -> int:
    if len(text) > 20:  # more than 64 bits
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _is_deep(value: Any, left: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(parts) and (left == 0 or any(_is_deep(one, left - 1) for one in parts))


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.exists() else "missing"


def copy_file(source: Path, file: BinaryIO) -> None:
    """Append the content of a file to an open one."""
    with source.open("rb") as content:
        shutil.copyfileobj(content, file)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
