"""Decoding of a data set's images into a `.npy` file in chunks.

A chunk counts as complete once its rows are on disk, so an interrupted build resumes after the last one.
"""

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.console import progress
from pipeline.data.image_files import (
    Adjustment,
    ImageReading,
    Unreadable,
    decode_image,
    reason_of,
    without_pillow_warnings,
)
from pipeline.data.images import ImageTable

CHUNK_ROWS = 1024
FILTER = "lanczos"

Outcome = Unreadable | frozenset[Adjustment]
"""The reason that an image cannot be decoded, or its conversions."""


def completed_rows(array_path: Path, num_rows: int) -> int:
    """Number of reliable rows of an unfinished array."""
    marks = _marks_path(array_path)
    chunks = marks.stat().st_size if marks.is_file() and array_path.is_file() else 0
    return min(chunks * CHUNK_ROWS, num_rows)


def decode_table(
    table: ImageTable, array_path: Path, *, height: int, width: int, workers: int, reading: ImageReading
) -> Iterator[Outcome]:
    """Write the images of a table into a `.npy` file, one row an image, from the first incomplete chunk.

    Yields the outcome of each image in order; an undecodable one is black. After the first of these no chunk counts as
    complete, so that a second attempt finds the same images again. The bytes do not depend on the number of workers.

    Raises:
        OSError: The array cannot be written, for instance because the disk is full.
    """
    shape = (len(table), height, width, 3)
    header = _header(shape)
    row_bytes = height * width * 3
    start = completed_rows(array_path, len(table))
    chunk = np.empty((min(CHUNK_ROWS, len(table)), height, width, 3), dtype=np.uint8)

    def decode_into(slot: int, path: str) -> Outcome:
        try:
            decoded = decode_image(table.root / path, height, width, reading)
        except (OSError, ValueError) as error:
            chunk[slot] = 0
            return Unreadable(path, reason_of(error))
        chunk[slot] = decoded.pixels
        return decoded.adjustments

    all_readable = True
    with (
        array_path.open("r+b" if start else "w+b") as file,
        _marks_path(array_path).open("ab" if start else "wb") as marks,
        ThreadPoolExecutor(workers) as pool,
    ):
        file.write(header)
        for first in range(start, len(table), CHUNK_ROWS):
            paths = table.paths[first : first + CHUNK_ROWS]
            for outcome in pool.map(decode_into, range(len(paths)), paths):
                all_readable = all_readable and not isinstance(outcome, Unreadable)
                yield outcome
            file.seek(len(header) + first * row_bytes)
            file.write(chunk[: len(paths)].data)
            _sync(file)
            if all_readable:
                marks.write(b".")  # the number of complete chunks is the file's length: a torn mark cannot exist
                _sync(marks)


def finish_array(array_path: Path) -> None:
    """Remove the marks of an unfinished array."""
    _marks_path(array_path).unlink()


def _marks_path(array_path: Path) -> Path:
    return array_path.with_suffix(".chunks")


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@dataclass(frozen=True, slots=True)
class Inspected:
    """Of `total` images, those that cannot be decoded, and how many needed each conversion."""

    total: int
    unreadable: tuple[Unreadable, ...]
    adjustments: Counter[Adjustment]


@without_pillow_warnings()
def inspect_images(tables: Iterable[ImageTable], reading: ImageReading, *, workers: int | None = None) -> Inspected:
    """Decode every image of the tables once, writing nothing."""
    images = tuple(dict.fromkeys((table.root, path) for table in tables for path in table.paths))

    def decode(image: tuple[Path, str]) -> Outcome:
        root, path = image
        try:
            return decode_image(root / path, 1, 1, reading).adjustments
        except (OSError, ValueError) as error:
            return Unreadable(path, reason_of(error))

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        outcomes = list(progress(pool.map(decode, images), "decode images", total=len(images), unit="images"))
    return Inspected(len(images), *split_outcomes(outcomes))


@without_pillow_warnings()
def any_readable(root: Path, paths: Iterable[str], reading: ImageReading) -> bool:
    """Whether one of some images can be decoded."""
    for path in paths:
        try:
            decode_image(root / path, 1, 1, reading)
        except (OSError, ValueError):
            continue
        return True
    return False


def split_outcomes(outcomes: Iterable[Outcome]) -> tuple[tuple[Unreadable, ...], Counter[Adjustment]]:
    """The unreadable images, and the number of images of each conversion."""
    unreadable, seen = list[Unreadable](), Counter[Adjustment]()
    for outcome in outcomes:
        if isinstance(outcome, Unreadable):
            unreadable.append(outcome)
        else:
            seen.update(outcome)
    return tuple(unreadable), seen
