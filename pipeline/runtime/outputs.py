"""The rule for output files and folders: what may be written and replaced, checked before anything is computed."""

import errno
import os
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runtime.atomic_files import copy_file, replace_file, temporary_name

STDOUT = Path("-")
"""Stands for standard output."""

_START_BYTES = 4096
_READER_SECONDS = 30.0
"""How long a named pipe may lack a reader."""


@dataclass(frozen=True, slots=True)
class OutputKind:
    """A kind of output file; an existing file is replaced only if `recognise` accepts it, or if it is empty."""

    noun: str
    recognise: Callable[[Path], bool]
    streams: bool = True
    """Whether it may be a device or a pipe."""


def _starts_with(*starts: bytes) -> Callable[[Path], bool]:
    def recognise(path: Path) -> bool:
        return _start_of(path).startswith(starts)

    return recognise


def _is_page(path: Path) -> bool:
    start = _start_of(path)
    return start.startswith(b"<!DOCTYPE html>") and b"default-src 'none'; img-src data:" in start


def _is_labels(path: Path) -> bool:
    start = _start_of(path)
    return start.startswith(b"\x93NUMPY") and b"'descr': '<i8'" in start and start.count(b",), }") == 1


def _holds(member: str) -> Callable[[Path], bool]:
    def recognise(path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name == member or name.endswith(f"/{member}") for name in archive.namelist())
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
            return False

    return recognise


def _is_parquet_with(mark: bytes) -> Callable[[Path], bool]:
    """Whether the description at the end of a Parquet file has a mark of ours."""

    def recognise(path: Path) -> bool:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1_000_000))
            end = file.read()
        return end.endswith(b"PAR1") and mark in end[-8 - int.from_bytes(end[-8:-4], "little") :]

    return recognise


def _is_our_sqlite(path: Path) -> bool:
    start = _start_of(path)
    return start.startswith(b"SQLite format 3\0") and start[68:72] == SQLITE_MARK.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class TableKind:
    """A table for other programs, known by its first two columns, and the kinds of its files.

    `name` is that of the table in SQLite.
    """

    name: str
    columns: tuple[str, str]
    csv: OutputKind
    parquet: OutputKind
    sqlite: OutputKind

    @classmethod
    def of(cls, name: str, command: str, columns: tuple[str, str]) -> "TableKind":
        """The table `name` of a command."""

        def is_parquet(path: Path) -> bool:
            from pipeline.runtime.parquet_files import column_names  # pyarrow, if such a file exists

            return PARQUET.recognise(path) and tuple(column_names(path)[:2]) == columns

        def is_sqlite(path: Path) -> bool:
            made = f'CREATE TABLE "{name}" ("{columns[0]}", "{columns[1]}", '
            return SQLITE.recognise(path) and made.encode() in _start_of(path)

        return cls(
            name,
            columns,
            OutputKind(f"{name} of `vireid {command}` (.csv)", _starts_with(",".join((*columns, "")).encode())),
            OutputKind(f"{name} of `vireid {command}` (.parquet)", is_parquet),
            OutputKind(f"{name} of `vireid {command}` (.sqlite)", is_sqlite),
        )


PARQUET_MARK = b"vireid.table"
FEATURES_MARK = b"vireid.features"
"""In the metadata of our Parquet files; that of features is the key of their record."""
SQLITE_MARK = 0x76697265
"""The application identifier of our SQLite files, `vire`."""

LABELS = OutputKind("labels of `vireid label`", _is_labels)
PARQUET_FEATURES = OutputKind("features (.parquet)", _is_parquet_with(FEATURES_MARK))
FEATURES = OutputKind(
    "features (.npz, .parquet)", lambda path: _holds("features.npy")(path) or PARQUET_FEATURES.recognise(path)
)
QUERIES = OutputKind("results of queries (.npz)", _holds("inverse_negative_penalty.npy"))
PAGE = OutputKind("a page of this program", _is_page)
CAPTIONS = OutputKind("captions (.jsonl)", lambda _: True, streams=False)
PAIRS = OutputKind("pairs of `vireid look` (.csv)", _starts_with(b"visible,infrared,similarity"))
FEEDBACK = OutputKind("marks of `vireid serve` (.csv)", _starts_with(b"time,query,query_modality,hit,"), streams=False)
PARQUET = OutputKind("a table of this program (.parquet)", _is_parquet_with(PARQUET_MARK))
SQLITE = OutputKind("a table of this program (.sqlite)", _is_our_sqlite)
HITS = TableKind.of("hits", "search", ("encoder", "query"))
VECTORS = TableKind.of("vectors", "embed", ("encoder", "path"))
MANIFEST = OutputKind("a manifest (.csv)", _starts_with(b"path,modality,camera"))


def check_file(
    path: Path, kind: OutputKind, option: str, inputs: Iterable[Path] = (), outputs: Iterable[Path] = ()
) -> None:
    """Refuse an output file that would destroy something, or that cannot be written.

    Devices and pipes are allowed: `write_output` writes into them.

    Raises:
        ConfigError: `path` is one of `inputs` or other `outputs` (by any spelling or link), a folder, a link, a block
            device, an existing file of another kind, write-protected, or in a folder that cannot be written.

    Cost: a few system calls; makes no file.
    """
    hint = f"name another file with {option}"
    try:
        _refuse_same(path, option, inputs, "an input")
        _refuse_same(path, option, outputs, "another output")
        if path == STDOUT and not kind.streams:
            raise ConfigError(f"{option} cannot be standard output", hint)
        if is_special(path) and kind.streams:
            return
        if path.is_symlink():
            raise ConfigError(f"{option} {path} is a link to {path.readlink()}", f"name the file itself with {option}")
        if path.is_dir():
            raise ConfigError(f"{option} {path} is a folder", f"add the name of a file in it to {option}")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{option} {path} is no regular file", hint)
        if path.exists() and path.stat().st_size and not kind.recognise(path):
            raise ConfigError(f"{option} {path} exists and does not contain {kind.noun}: it is not replaced", hint)
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError(f"{option} {path} is write-protected", hint)
        temporary_name(path).exists()  # raises for a name that is too long
    except OSError as error:  # a name that is too long, a folder that cannot be entered
        raise ConfigError(f"{option} {path} cannot be used: {error.strerror or error}", hint) from error
    _check_place(path.parent, path, option)


def check_folder(path: Path, option: str) -> None:
    """Refuse an output folder that is a file, a link to nothing, or that cannot be made or written.

    Raises:
        ConfigError: With the reason.

    Cost: a few system calls; makes no folder.
    """
    hint = f"name another folder with {option}"
    try:
        if path.is_symlink() and not path.exists():
            raise ConfigError(f"{option} {path} is a link to {path.readlink()}, which does not exist", hint)
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{option} {path} is a file, not a folder", hint)
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be used: {error.strerror or error}", hint) from error
    _check_place(path, path, option)


def is_special(path: Path) -> bool:
    """Whether a path is standard output, a character device or a pipe, also by a link such as `/dev/stdout`."""
    if path == STDOUT:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def write_output(
    path: Path, write: Callable[[BinaryIO], object], kind: OutputKind, option: str, *, archive: bool = False
) -> None:
    """Write an output file: atomically, or into a device or pipe. Its folder is made.

    Raises:
        ConfigError: See `check_file`.
        CheckpointError: The disk is full or failed; no program reads from a named pipe.
    """
    check_file(path, kind, option)
    if not is_special(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = f"name another file with {option}"
            raise ConfigError(f"{option} {path} cannot be written: {error.strerror}", hint) from error
        replace_file(path, write, archive=archive)
        return
    with tempfile.TemporaryDirectory() as folder:  # a device cannot be read back, so the file is verified before
        whole = Path(folder) / path.name
        replace_file(whole, write, archive=archive)
        try:
            with os.fdopen(_open_special(path), "wb") as target:
                copy_file(whole, target)
        except OSError as error:
            message = f"{option} {path} could not be written: {error.strerror or error}"
            raise CheckpointError(message, hint=f"name another file with {option}") from error


def _open_special(path: Path) -> int:
    """Open for writing; a named pipe waits for its reader, but not for ever."""
    if path == STDOUT:
        return os.dup(1)
    limit = time.monotonic() + _READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > limit:
                raise
            time.sleep(0.1)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _check_place(folder: Path, path: Path, option: str) -> None:
    """Make a nameless file in the nearest existing folder: permissions alone do not reveal every obstacle."""
    try:
        while not folder.exists():
            if folder.is_symlink():
                raise ConfigError(
                    f"{option} {path}: {folder} is a link to {folder.readlink()}, which does not exist",
                    hint=f"name another place with {option}",
                )
            folder = folder.parent
        if not folder.is_dir():
            raise ConfigError(f"{option} {path}: {folder} is a file", hint=f"name another place with {option}")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ConfigError(
            f"{option} {path} cannot be written: {folder}: {error.strerror or error}",
            hint="free some space, or " * full + f"name another place with {option}",
        ) from error


def _refuse_same(path: Path, option: str, others: Iterable[Path], role: str) -> None:
    for one in others:
        if _is_same(path, one):
            message = f"{option} {path} is also {role} of this command" + f", {one}" * (one != path)
            raise ConfigError(message, hint=f"name another place with {option}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) and not is_special(one)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_START_BYTES)
