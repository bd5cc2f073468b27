"""A caption file that grows line by line, and loses none and doubles none, whenever the process is killed."""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from pipeline.captioning.provenance import DECIDING, Provenance, differences
from pipeline.data.captions.files import meta_path, read_caption_rows
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runtime import atomic_files

logger = logging.getLogger(__name__)

OLD = ".old"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said about an image, or why there is no caption of it: then `caption` is empty."""

    path: str
    modality: str
    caption: str
    problem: str = ""


class CaptionWriter:
    """An open caption file. `open_writer` makes it.

    Args:
        path: The file.
        file: The same, open for appending.
        done: The paths that have a caption already.
    """

    def __init__(self, path: Path, file: FileIO, done: set[str]) -> None:
        self._path, self._file = path, file
        self.done = done

    def add(self, answers: Sequence[Answer]) -> None:
        """Write a batch: captions into the file, the others into the list of failures; both are on disk on return.

        Raises:
            CheckpointError: The disk is full, or failed; what was written before stays.
        """
        captioned = [answer for answer in answers if answer.caption]
        failed = [answer for answer in answers if not answer.caption]
        try:
            _append(
                self._file,
                [{"path": one.path, "modality": one.modality, "caption": one.caption} for one in captioned],
            )
            if failed:
                with failures_path(self._path).open("ab", buffering=0) as file:
                    _append(
                        file, [{"path": one.path, "modality": one.modality, "error": one.problem} for one in failed]
                    )
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self.done.update(answer.path for answer in captioned)


@contextmanager
def open_writer(path: Path, provenance: Provenance, *, start_over: bool) -> Iterator[CaptionWriter]:
    """Open a new caption file, or go on with one that was made in the same way.

    A last line without its end, which a kill leaves, is dropped. Images that failed are forgotten, so that they are
    tried again. No other process can open the file meanwhile.

    Args:
        path: The `.jsonl` file; its folder is made. `.meta.json` and `.errors.jsonl` lie beside it.
        provenance: How captions are made now.
        start_over: Put a file that is there aside, as `.old`, and begin again.

    Raises:
        ConfigError: The file was made otherwise; every difference is named.
        DataError: The file was not made by this program, or is damaged.
        CheckpointError: Another process writes it, or it cannot be written.
    """
    refuse_foreign(path)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if start_over and path.exists():
                with _locked(path):
                    _put_aside(path, meta_path(path), failures_path(path))
            file = stack.enter_context(_locked(path))
            found = atomic_files.read_json(meta_path(path)) if path.stat().st_size else None
            _write_meta(path, found, provenance.to_dict())
            failures_path(path).unlink(missing_ok=True)
            done = _lines_on_disk(path, file)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield CaptionWriter(path, file, done)


def refuse_foreign(path: Path) -> None:
    """Leave files alone that this program did not write, such as the captions that come with drawn people.

    Raises:
        ConfigError: The file's name does not end in `.jsonl`.
        DataError: There is such a file, and nothing beside it says where it comes from.
    """
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: captions are written as JSON lines", hint="let the name end in .jsonl")
    if path.exists() and path.stat().st_size and not meta_path(path).exists():
        raise DataError(
            f"{path} exists, and no {meta_path(path).name} beside it says that `vireid caption` wrote it",
            hint="name another file with --out",
        )


def failures_path(path: Path) -> Path:
    """Where images without a caption are noted: `sysu.errors.jsonl` beside `sysu.jsonl`."""
    return path.with_name(f"{path.stem}.errors.jsonl")


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process writes {path}", hint="wait until it ends, or give every process a --shard of its own"
            ) from error
        yield file


def _write_meta(path: Path, found: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    if found is None:
        atomic_files.write_json(meta_path(path), wanted)
        return
    apart = differences(found, wanted, (*DECIDING, "shard"))
    if apart:
        raise ConfigError(
            f"{path} was begun otherwise: {'; '.join(apart)}",
            hint="give the same options again, another --out, or --new, which keeps the old file as .old",
        )
    if found["library_versions"] != wanted["library_versions"]:
        logger.warning("%s was begun with other versions of libraries; its description names both", path)
    versions = [found["library_versions"], *found.get("later_library_versions", [])]
    later = [*versions, *[one for one in (wanted["library_versions"],) if one not in versions]][1:]
    updated = {**found, "images": wanted["images"], "all_images": wanted["all_images"]}
    if later:
        updated["later_library_versions"] = later
    if updated != found:
        atomic_files.write_json(meta_path(path), updated)


def _lines_on_disk(path: Path, file: FileIO) -> set[str]:
    """Drop an unterminated last line; the paths of the others."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        logger.info("%s: the last line was not finished, and is written again", path)
        file.truncate(whole)
        os.fsync(file.fileno())
    return {row.path for row in read_caption_rows(path, caption_field="caption", path_prefix="")} if whole else set()


def _put_aside(path: Path, *beside: Path) -> None:
    for one in (path, *beside):
        if one.exists():
            one.replace(one.with_name(one.name + OLD))
    logger.info("%s: begun again; what was there is kept as %s", path, path.name + OLD)


def _append(file: FileIO, rows: Sequence[dict[str, str]]) -> None:
    """Lines go to the end of the file in their order, so that a kill or a full disk cuts the last of them at most."""
    left = memoryview("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> CheckpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CheckpointError(
        f"{path} could not be written: {error.strerror or error}",
        hint=f"{'free some space' if full else 'look after that disk'} and give the same command again: it goes on",
    )
