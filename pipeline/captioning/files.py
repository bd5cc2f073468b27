"""Caption files: metadata, a writer that neither loses nor repeats a line when killed, and merging of shards."""

import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any, Final

from models.modality import PerModality
from pipeline.data.captions.files import CAPTION_SCHEMA, CaptionRow, meta_path, read_caption_rows, some_of
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runtime import atomic_files
from pipeline.runtime.shards import Shard
from pipeline.runtime.text_files import read_text

IMAGE_SOURCE: Final = "original"
"""Images are described as stored: neither resized to the network's input nor augmented."""
DECIDING: Final = ("schema", "model_id", "revision", "prompt", "decoding", "image_source", "data_set")
"""The metadata that captions depend on, equal for all lines of a file."""
logger = logging.getLogger(__name__)
OLD = ".old"
_SHOWN_SHARDS = 10


@dataclass(frozen=True, slots=True)
class Provenance:
    """The metadata of a caption file.

    `num_images` counts those of `shard` (None for all); `all_images` is the `image_list` of all shards. Captions have
    at most `max_new_tokens`.
    """

    model_id: str
    revision: str
    prompts: PerModality[str]
    max_new_tokens: int
    dtype: str
    data_set: str
    shard: Shard | None
    num_images: int
    all_images: dict[str, Any]
    library_versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the present time."""
        return {
            "schema": CAPTION_SCHEMA,
            "model_id": self.model_id,
            "revision": self.revision,
            "prompt": {modality.value: prompt for modality, prompt in self.prompts.items()},
            "decoding": {"max_new_tokens": self.max_new_tokens, "do_sample": False, "dtype": self.dtype},
            "image_source": IMAGE_SOURCE,
            "data_set": self.data_set,
            "shard": None if self.shard is None else str(self.shard),
            "images": self.num_images,
            "all_images": self.all_images,
            "library_versions": self.library_versions,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def image_list(paths: Iterable[str]) -> dict[str, Any]:
    """The number of images, and a digest of their paths, whatever their order.

    >>> image_list(["b", "a"]) == image_list(["a", "b"])
    True
    """
    ordered = sorted(paths)
    digest = hashlib.sha256("".join(f"{path}\n" for path in ordered).encode()).hexdigest()
    return {"count": len(ordered), "digest": f"sha256:{digest}"}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], names: Iterable[str] = DECIDING) -> list[str]:
    """One sentence for each of these names whose values differ.

    >>> differences({"schema": "1"}, {"schema": "2"}, ["schema"])
    ['schema was "1" and is "2"']
    """
    return [
        f"{name} was {_shown(found.get(name))} and is {_shown(wanted.get(name))}"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The caption of an image; if it is empty, `problem` is the reason."""

    path: str
    modality: str
    caption: str
    problem: str = ""


class CaptionWriter:
    """An open caption file, made by `open_writer`; `done` has the paths with a caption."""

    def __init__(self, path: Path, file: FileIO, done: set[str]) -> None:
        self._path, self._file = path, file
        self.done = done

    def add(self, answers: Sequence[Answer]) -> None:
        """Write a batch: captions into the file, the others into the list of failures; both are on disk on return.

        Raises:
            CheckpointError: The disk is full, or failed; earlier captions are kept.
        """
        captioned = [answer for answer in answers if answer.caption]
        failed = [answer for answer in answers if not answer.caption]
        try:
            _append(
                self._file, [{"path": one.path, "modality": one.modality, "caption": one.caption} for one in captioned]
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
    """Open a new caption file, or resume one with the same metadata.

    An incomplete last line, which a kill leaves, is removed. Images that failed are tried again. The file is locked.
    `start_over` renames an existing file to `.old` first. `.meta.json` and `.errors.jsonl` are beside the file.

    Raises:
        ConfigError: The file's metadata differ; every difference is named.
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
            found = _read_meta(path) if path.stat().st_size else None
            _write_meta(path, found, provenance.to_dict())
            failures_path(path).unlink(missing_ok=True)
            done = _lines_on_disk(path, file)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield CaptionWriter(path, file, done)


def refuse_foreign(path: Path) -> None:
    """Refuse to change files of other programs, such as the captions of a synthetic data set.

    Raises:
        ConfigError: The file's name does not end in `.jsonl`.
        DataError: The file exists without metadata beside it.
    """
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: captions are written as JSON lines", hint="use a name that ends in .jsonl")
    if path.exists() and path.stat().st_size and not meta_path(path).exists():
        raise DataError(
            f"{path} exists without {meta_path(path).name}: `vireid caption` did not write it",
            hint="choose another file with --out",
        )


def failures_path(path: Path) -> Path:
    """The list of images without a caption: `sysu.errors.jsonl` beside `sysu.jsonl`."""
    return path.with_name(f"{path.stem}.errors.jsonl")


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process writes {path}", hint="wait until it ends, or use a different --shard for each process"
            ) from error
        yield file


@dataclass(frozen=True, slots=True)
class _Meta:
    """The types of the metadata that are read back."""

    library_versions: dict[str, str] = field(default_factory=dict)
    images: int = 0
    all_images: dict[str, Any] = field(default_factory=dict)
    shard: str | None = None
    later_library_versions: tuple[dict[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.shard is not None:
            Shard.parse(self.shard)


def _read_meta(path: Path) -> dict[str, Any] | None:
    hint = "restore it from a copy, or caption the images again with --new"
    try:
        meta = atomic_files.read_json(meta_path(path))
        if meta is not None:
            atomic_files.checked(_Meta, meta, meta_path(path))
    except (CheckpointError, ConfigError) as error:
        raise DataError(error.message, hint=hint) from error
    return meta


def _write_meta(path: Path, found: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    if found is None:
        atomic_files.write_json(meta_path(path), wanted)
        return
    apart = differences(found, wanted, (*DECIDING, "shard"))
    if apart:
        raise ConfigError(
            f"{path} was begun with other options: {'; '.join(apart)}",
            hint="use the same options, another --out, or --new, which keeps the old file as .old",
        )
    before = found.get("library_versions", {})
    if before != wanted["library_versions"]:
        logger.warning("%s was begun with other library versions; its metadata list both", path)
    versions = [before, *found.get("later_library_versions", [])]
    later = [*versions, *[one for one in (wanted["library_versions"],) if one not in versions]][1:]
    updated = {**found, "images": wanted["images"], "all_images": wanted["all_images"]}
    if later:
        updated["later_library_versions"] = later
    if updated != found:
        atomic_files.write_json(meta_path(path), updated)


def _lines_on_disk(path: Path, file: FileIO) -> set[str]:
    """Remove an incomplete last line; return the paths of the others."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        logger.info("%s: the last line is incomplete and is written again", path)
        file.truncate(whole)
        os.fsync(file.fileno())
    return {row.path for row in read_caption_rows(path, caption_field="caption", path_prefix="")} if whole else set()


def _put_aside(path: Path, *beside: Path) -> None:
    for one in (path, *beside):
        if one.exists():
            one.replace(one.with_name(one.name + OLD))
    logger.info("%s: begun again; the old file is kept as %s", path, path.name + OLD)


def _append(file: FileIO, rows: Sequence[dict[str, str]]) -> None:
    """Append lines in order, so that a kill or a full disk truncates the last of them at most."""
    left = memoryview("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> CheckpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CheckpointError(
        f"{path} could not be written: {error.strerror or error}",
        hint=f"{'free some space' if full else 'check the disk'} and repeat the command: it resumes",
    )


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    meta: dict[str, Any]
    rows: list[CaptionRow]

    @property
    def shard(self) -> Shard:
        return Shard.parse(str(self.meta["shard"]))


def merge_captions(out: Path, parts: Sequence[Path]) -> int:
    """Merge the caption files of all shards into `out`, in the order of their paths; return the number of captions.

    Raises:
        ConfigError: `out` does not end in `.jsonl`.
        DataError: `out` exists; a part has no or other metadata; a part is missing, given twice or incomplete; an image
            is in two of them.
        CheckpointError: `out` cannot be written.
    """
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out}: captions are written as JSON lines", hint="use a name that ends in .jsonl")
    if out.exists():
        raise DataError(f"{out} exists", hint="choose another file, or remove this one")
    read = [_read_part(path) for path in parts]
    first = read[0]
    for part in read[1:]:
        apart = differences(first.meta, part.meta, (*DECIDING, "all_images"))
        if apart:
            raise DataError(
                f"{part.path} and {first.path} were made with different options: {'; '.join(apart)}",
                hint="caption one of them again with the options of the other",
            )
    _refuse_overlaps(read)
    _refuse_gaps(read)
    lines = sorted((row.path, line) for part in read for row, line in zip(part.rows, _lines(part.path), strict=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = {**first.meta, "shard": None, "images": len(lines), "merged_from": len(read)}
    atomic_files.write_json(meta_path(out), whole)
    atomic_files.write_lines(out, [line for _, line in lines])
    return len(lines)


def _read_part(path: Path) -> _Part:
    rows = read_caption_rows(path, caption_field="caption", path_prefix="")
    meta = _read_meta(path)
    if meta is None or meta.get("shard") is None:
        raise DataError(
            f"{path}: no {meta_path(path).name} beside it names its shard",
            hint="merge files that `vireid caption --shard` wrote",
        )
    return _Part(path, meta, rows)


def _lines(path: Path) -> list[dict[str, Any]]:
    text = read_text(path, kind="caption file", origin="`vireid caption` writes one")
    return [json.loads(line.lstrip("\ufeff")) for line in text.split("\n") if line.strip()]


def _refuse_overlaps(parts: Sequence[_Part]) -> None:
    place_of: dict[str, str] = {}
    offenders: list[str] = []
    for part in parts:
        for row in part.rows:
            if row.path in place_of:
                offenders.append(f"{row.path} ({place_of[row.path]} and {row.place})")
            place_of[row.path] = row.place
    if offenders:
        raise DataError(some_of(offenders, "images in two shards"), hint="pass every shard once")


def _refuse_gaps(parts: Sequence[_Part]) -> None:
    counts = {part.shard.count for part in parts}
    if len(counts) > 1:
        raise DataError(
            f"the shards are parts of {' and of '.join(map(str, sorted(counts)))}", hint="merge shards of one division"
        )
    numbers = {part.shard.number for part in parts}
    numbered = range(1, counts.pop() + 1)
    absent = list(islice((str(number) for number in numbered if number not in numbers), _SHOWN_SHARDS))
    if absent:
        raise DataError(f"shard {', '.join(absent)} is missing", hint="pass the file of every shard")
    short = [
        f"{part.path} has {len(part.rows):,} of {part.meta.get('images', 0):,} captions"
        for part in parts
        if len(part.rows) != part.meta.get("images")
    ]
    found = image_list(row.path for part in parts for row in part.rows)
    if short or found != parts[0].meta.get("all_images"):
        raise DataError(
            "; ".join(short) or f"{found['count']:,} captions of other images than those of the data set",
            hint="complete the shard by repeating its command",
        )
