"""Image files to vectors, in chunks that survive a kill; unreadable images are listed."""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from models.modality import Modality
from pipeline.console import progress
from pipeline.data.image_faults import fault_lines
from pipeline.data.image_files import (
    Adjustment,
    ImageReading,
    Unreadable,
    decode_image,
    log_adjustments,
    reason_of,
    without_pillow_warnings,
)
from pipeline.data.image_list import ImageList
from pipeline.errors import CheckpointError, DataError
from pipeline.inference.encoder import TrainedEncoder
from pipeline.runtime import atomic_files
from pipeline.runtime.arrays import read_arrays

logger = logging.getLogger(__name__)

CHUNK = 512
_PLAN = "plan.json"
_OWN = re.compile(r"\.?(plan\.json|\d{6}\.npz)(\.tmp)?")


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Vectors of the readable images, `rows` being their positions in the image list, and the unreadable images."""

    vectors: Float32[np.ndarray, "m dim"]
    rows: Int64[np.ndarray, " m"]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Consecutive images of one modality."""

    rows: Int64[np.ndarray, " c"]
    modality: Modality


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded image, or the reason why it cannot be read."""

    pixels: UInt8[np.ndarray, "height width 3"] | None
    adjustments: frozenset[Adjustment] = frozenset()
    problem: str = ""


@without_pillow_warnings()
def embed_images(
    encoder: TrainedEncoder,
    images: ImageList,
    *,
    batch_size: int,
    parts: Path | None = None,
    workers: int | None = None,
    description: str = "embed images",
) -> Embedded:
    """Encode every readable image once.

    * `parts`: Folder for finished chunks, so that the same call resumes after a kill; `forget_parts` removes it. None
      keeps nothing.
    * `workers`: Decoding threads; one a core when None.

    Raises:
        TrainingError: See `TrainedEncoder.encode`.
        CheckpointError: A chunk cannot be written.

    Cost: one decoding and one forward pass an image; two chunks of pixels in memory, 128 MB at 288 x 144.
    """
    chunks = [
        _Chunk(rows[start : start + CHUNK], modality)
        for modality in Modality
        for rows in (images.of(modality),)
        for start in range(0, len(rows), CHUNK)
    ]
    if parts is not None:
        _begin_parts(parts, encoder, images)
    done = [parts is not None and _part(parts, number).exists() for number in range(len(chunks))]
    left = [chunk for chunk, there in zip(chunks, done, strict=True) if not there]
    vectors = np.empty((0, 0), np.float32)
    rows = np.empty(len(images), np.int64)
    count = 0
    unreadable: list[Unreadable] = []
    seen: Counter[Adjustment] = Counter()
    pictures = _decode_ahead(images, left, encoder.height, encoder.width, encoder.reading, workers)
    steps = progress(
        enumerate(chunks), description, len(images), "images", count=lambda step: len(step[1].rows), rate=True
    )
    for number, chunk in steps:
        if done[number]:
            assert parts is not None
            found, problems = _read_part(_part(parts, number), chunk)
        else:
            decoded = next(pictures)
            seen.update(adjustment for picture in decoded for adjustment in picture.adjustments)
            problems = [picture.problem for picture in decoded]
            found = _encode(encoder, decoded, chunk.modality, batch_size)
            if parts is not None:
                _write_part(_part(parts, number), found, problems)
        if len(found):
            if not count:
                vectors = np.empty((len(images), found.shape[1]), np.float32)  # once: a million rows are gigabytes
            vectors[count : count + len(found)] = found
            rows[count : count + len(found)] = chunk.rows[np.array([not problem for problem in problems], dtype=bool)]
            count += len(found)
        unreadable += [
            Unreadable(images.paths[row], problem) for row, problem in zip(chunk.rows, problems, strict=True) if problem
        ]
    _log(seen, unreadable, len(images))
    return Embedded(vectors[:count], rows[:count], tuple(unreadable))


def require_some(embedded: Embedded) -> Embedded:
    """Return the argument; DataError if no image could be read."""
    if not len(embedded.rows):
        problems = embedded.unreadable
        faults = "; ".join(fault_lines(problems))
        raise DataError(f"none of {len(problems):,} images can be read: {faults}", hint="check these files")
    return embedded


def has_parts(folder: Path) -> bool:
    """Whether a folder holds chunks of an unfinished call, which do not record whose images they are."""
    return folder.is_dir() and any(_OWN.fullmatch(file.name) for file in folder.iterdir())


def forget_parts(parts: Path) -> None:
    """Remove the chunks of a finished call; other files in their folder, and then the folder, stay."""
    with contextlib.suppress(OSError):
        for file in parts.iterdir():
            if _OWN.fullmatch(file.name):
                file.unlink()
        parts.rmdir()


def _encode(
    encoder: TrainedEncoder, pictures: Sequence[_Picture], modality: Modality, batch_size: int
) -> Float32[np.ndarray, "m dim"]:
    pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
    if not pixels:
        return np.empty((0, 0), np.float32)
    return np.concatenate(
        [
            encoder.encode(np.stack(pixels[start : start + batch_size]), modality)
            for start in range(0, len(pixels), batch_size)
        ]
    )


def _decode_ahead(
    images: ImageList,
    chunks: Sequence[_Chunk],
    height: int,
    width: int,
    reading: ImageReading,
    workers: int | None,
) -> Iterator[list[_Picture]]:
    """Decode each chunk while the previous one is encoded."""

    def decode(path: str) -> _Picture:
        try:
            decoded = decode_image(images.root / path, height, width, reading)
        except (OSError, ValueError) as error:
            return _Picture(None, problem=reason_of(error))
        return _Picture(decoded.pixels, decoded.adjustments)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        waiting: list[list[Future[_Picture]]] = []
        try:
            for chunk in chunks:
                waiting.append([pool.submit(decode, images.paths[row]) for row in chunk.rows])
                if len(waiting) == 2:
                    yield [future.result() for future in waiting.pop(0)]
            while waiting:
                yield [future.result() for future in waiting.pop(0)]
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()


def _log(seen: Counter[Adjustment], unreadable: Sequence[Unreadable], total: int) -> None:
    log_adjustments(seen, total)
    if unreadable:
        counts, faults = (f"{len(unreadable):,}", f"{total:,}"), "; ".join(fault_lines(unreadable))
        logger.warning("%s of %s images cannot be read: %s", *counts, faults)


def _begin_parts(parts: Path, encoder: TrainedEncoder, images: ImageList) -> None:
    """Keep the chunks of the same images and encoder; remove others."""
    names = "".join(f"{path} {_stamp(images.root / path)}\n" for path in images.paths)
    names += images.infrared.tobytes().hex()
    plan = {
        "encoder": encoder.digest,
        "reading": encoder.reading.to_dict(),
        "chunk": CHUNK,
        "images": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
    }
    if parts.exists() and _recorded_plan(parts) != plan:
        forget_parts(parts)
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{parts}, the folder of finished chunks, cannot be made: {error.strerror}", hint="name another output"
        ) from error
    atomic_files.write_json(parts / _PLAN, plan)
    finished = sum(1 for _ in parts.glob("*.npz"))
    if finished:
        logger.info("resuming after %s images", f"{min(finished * CHUNK, len(images)):,}")


def are_parts(parts: Path) -> bool:
    """Whether a folder is that of chunks of an unfinished call."""
    plan = parts / _PLAN
    return parts.is_dir() and (plan.is_file() or {*parts.iterdir()} <= {atomic_files.temporary_name(plan)})


def _recorded_plan(parts: Path) -> dict[str, Any] | None:
    try:
        return atomic_files.read_json(parts / _PLAN)
    except CheckpointError:
        return None  # damaged: the chunks are made again


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and modification time: the vector of an image that has changed since is out of date."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # no file can have a name with a null byte
        return None
    return found.st_size, found.st_mtime_ns


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.npz"


def _write_part(path: Path, vectors: Float32[np.ndarray, "m dim"], problems: Sequence[str]) -> None:
    def write(file: BinaryIO) -> None:
        np.savez(file, allow_pickle=False, vectors=vectors, problems=np.array(json.dumps(problems)))

    atomic_files.replace_file(path, write, archive=True)


def _read_part(path: Path, chunk: _Chunk) -> tuple[Float32[np.ndarray, "m dim"], list[str]]:
    hint = "remove it: its images are embedded again"
    atomic_files.check_archive(path, hint)
    arrays, _ = read_arrays(path, ("vectors", "problems"), hint)
    try:
        problems = json.loads(str(arrays["problems"]))
        vectors = arrays["vectors"]
        readable = sum(not problem for problem in problems)
        fits = len(problems) == len(chunk.rows) and all(isinstance(problem, str) for problem in problems)
    except (KeyError, ValueError, TypeError, RecursionError):
        fits = False
    if not fits or vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != readable:
        raise CheckpointError(f"{path} is damaged: it holds other images than its plan", hint=hint)
    return vectors, problems
