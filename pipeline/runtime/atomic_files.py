"""Atomic file replacement: written beside the target, synced, and renamed."""

import errno
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import CheckpointError

TEMPORARY = ".tmp"


def replace_file(path: Path, write: Callable[[BinaryIO], None], *, archive: bool = False) -> None:
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


def check_archive(path: Path) -> None:
    """Verify every checksum of a zip archive, because torch does not.

    Raises:
        CheckpointError: The archive is truncated or changed.

    Cost: one read of the file; about a second a gigabyte.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        damaged = "its end is missing"
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged ({path.stat().st_size:,} bytes; {damaged})",
            hint="restore it from a copy, or remove it to start this run again from its first round",
        )


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
        CheckpointError: The file is not a JSON object.
    """
    return _parse(path, [path.read_bytes()])[0] if path.exists() else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; empty without a file.

    Raises:
        CheckpointError: A line is not a JSON object.
    """
    return _parse(path, path.read_bytes().splitlines()) if path.exists() else []


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


def _parse(path: Path, texts: Sequence[bytes]) -> list[dict[str, Any]]:
    hint = "restore it from a copy, or start this run again in a new folder"
    try:
        values = [json.loads(text) for text in texts]
    except ValueError as error:  # no JSON, or no text
        raise CheckpointError(f"{path} is damaged: {error}", hint=hint) from error
    if not all(isinstance(value, dict) for value in values):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object", hint=hint)
    return values


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
