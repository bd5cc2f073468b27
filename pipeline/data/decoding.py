"""From image files to rows of a `.npy` file, in chunks, so that a build that was cut short goes on where it stood."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from pipeline.data.images import ImageTable

CHUNK_ROWS = 1024
FILTER = "lanczos"
DEEP_MODES = ("I", "F")
"""Pillow's names for pixels of 16 bits and more begin so; converting them to 8 bits would clip."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image file that cannot be decoded, and why."""

    path: str
    reason: str


def decode_image(path: Path, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image to three channels and resize it, with neither crop nor rotation.

    Infrared images may hold one channel: it is repeated. An orientation tag is not applied, since detectors' boxes were
    cut without it.

    Args:
        path: A file in any format that Pillow reads, 8 bits a channel.
        height: Rows of the result, pixels.
        width: Columns of the result, pixels.

    Returns:
        RGB pixels.

    Raises:
        OSError: The file is missing, cut short, or no image.
        ValueError: It cannot be shown in 8 bits a channel, or is unreasonably large.

    Cost:
        About 2 ms of one core for an image of 400 x 200. Pillow decodes and resizes without the interpreter's lock.
    """
    return np.asarray(read_image(path).resize((width, height), Image.Resampling.LANCZOS))


def read_image(path: Path) -> Image.Image:
    """Decode an image to three channels, at its own size.

    Raises:
        OSError: As for `decode_image`.
        ValueError: Likewise.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(DEEP_MODES):
                raise ValueError(f"pixels of mode {image.mode} have more than 8 bits")
            return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except SyntaxError as error:  # Pillow's word for a damaged PNG chunk
        raise OSError(f"damaged image file: {error}") from error


def reason_of(error: OSError | ValueError) -> str:
    """Why an image could not be decoded, without its path."""
    if isinstance(error, UnidentifiedImageError):  # its message repeats the path
        return "no image, or an empty file"
    return str((isinstance(error, OSError) and error.strerror) or error)


def completed_rows(array_path: Path, num_rows: int) -> int:
    """How many rows of a partly built array can be relied on."""
    marks = _marks_path(array_path)
    chunks = marks.stat().st_size if marks.is_file() and array_path.is_file() else 0
    return min(chunks * CHUNK_ROWS, num_rows)


def decode_table(
    table: ImageTable, array_path: Path, *, height: int, width: int, workers: int
) -> Iterator[Unreadable | None]:
    """Write the images of a table into a `.npy` file, one row an image, from the first chunk that is not complete.

    A chunk counts as complete once its rows are on disk; from the first image that cannot be decoded on, no chunk
    counts, so that a second attempt finds the same images again.

    Args:
        table: The images; row i of the array is image i.
        array_path: Where to write; `finish_array` makes it a finished one.
        height: Rows of an image, pixels.
        width: Columns of an image, pixels.
        workers: How many images are decoded at once; the bytes do not depend on it.

    Yields:
        For each image still to decode, in order: None, or why it could not be decoded.

    Raises:
        OSError: The array cannot be written, for instance because the disk is full.
    """
    shape = (len(table), height, width, 3)
    header = _header(shape)
    row_bytes = height * width * 3
    start = completed_rows(array_path, len(table))
    chunk = np.empty((min(CHUNK_ROWS, len(table)), height, width, 3), dtype=np.uint8)

    def decode_into(slot: int, path: str) -> Unreadable | None:
        try:
            chunk[slot] = decode_image(table.root / path, height, width)
        except (OSError, ValueError) as error:
            return Unreadable(path, reason_of(error))
        return None

    all_readable = True
    with (
        array_path.open("r+b" if start else "w+b") as file,
        _marks_path(array_path).open("ab" if start else "wb") as marks,
        ThreadPoolExecutor(workers) as pool,
    ):
        file.write(header)
        for first in range(start, len(table), CHUNK_ROWS):
            paths = table.paths[first : first + CHUNK_ROWS]
            for problem in pool.map(decode_into, range(len(paths)), paths):
                all_readable = all_readable and problem is None
                yield problem
            if all_readable:
                file.seek(len(header) + first * row_bytes)
                file.write(chunk[: len(paths)].data)
                _sync(file)
                marks.write(b".")  # the number of complete chunks is the file's length: a torn mark cannot exist
                _sync(marks)


def finish_array(array_path: Path) -> None:
    """Remove what only an unfinished array needs."""
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
