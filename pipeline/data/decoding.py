"""Decoding of image files: a data set's images into a `.npy` file in chunks, and images of any kind.

A chunk counts as complete once its rows are on disk, so an interrupted build resumes after the last one.
"""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from pipeline.console import progress
from pipeline.data.images import ImageTable

CHUNK_ROWS = 1024
FILTER = "lanczos"
DEEP_MODES = ("I", "F")  # prefixes of Pillow's modes of 16 bits and more; converting them to 8 bits would clip
MOST_PIXELS = 50_000_000  # of an image that is decoded in full, 150 MB as RGB
LARGE_JPEG = 16_000_000  # pixels; a larger JPEG is decoded at a part of its size
_DAMAGE = (SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error)
"""Errors of Pillow's decoders, besides OSError and ValueError, for a file that does not match its first bytes."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image file that cannot be decoded, and the reason."""

    path: str
    reason: str


def decode_image(path: Path, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image to RGB and resize it, without crop or rotation; one-channel (infrared) images are repeated.

    Orientation tags are not applied, because detectors cut boxes without them.

    Raises:
        OSError: The file is missing, truncated, or no image.
        ValueError: It has more than 8 bits a channel, or is unreasonably large.
    """
    return np.asarray(read_image(path).resize((width, height), Image.Resampling.LANCZOS))


def read_image(path: Path) -> Image.Image:
    """Decode an image to three channels, at its own size; raises as `decode_image`."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(DEEP_MODES):
                raise ValueError(f"pixels of mode {image.mode} have more than 8 bits")
            return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except SyntaxError as error:  # a damaged PNG chunk
        raise OSError(f"damaged image file: {error}") from error


def reason_of(error: OSError | ValueError) -> str:
    """The reason that an image could not be decoded, without its path."""
    if isinstance(error, UnidentifiedImageError):  # its message repeats the path
        return "no image, or an empty file"
    return str((isinstance(error, OSError) and error.strerror) or error)


def completed_rows(array_path: Path, num_rows: int) -> int:
    """Number of reliable rows of an unfinished array."""
    marks = _marks_path(array_path)
    chunks = marks.stat().st_size if marks.is_file() and array_path.is_file() else 0
    return min(chunks * CHUNK_ROWS, num_rows)


def decode_table(
    table: ImageTable, array_path: Path, *, height: int, width: int, workers: int
) -> Iterator[Unreadable | None]:
    """Write the images of a table into a `.npy` file, one row an image, from the first incomplete chunk.

    Yields None, or the error, for each image in order. After the first undecodable image no chunk counts as complete,
    so that a second attempt finds the same images again. The bytes do not depend on the number of workers.

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


class Adjustment(StrEnum):
    """A conversion that an image needed."""

    SCALED = "more than 8 bits a channel: scaled so that its darkest pixel is black and its brightest white"
    FIRST_FRAME = "several frames: the first one is taken"
    OTHER_COLOURS = "other colours than red, green and blue: converted"


@dataclass(frozen=True, slots=True)
class Opened:
    """An RGB image and its conversions."""

    image: Image.Image
    adjustments: frozenset[Adjustment]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The pixels of an image at the requested size and its conversions."""

    pixels: UInt8[np.ndarray, "height width 3"]
    adjustments: frozenset[Adjustment]


@contextmanager
def large_images_expected() -> Iterator[None]:
    """Silence Pillow's warning of large images, bounded here by `MOST_PIXELS`; enter it outside of worker threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def decode_any_image(path: Path, height: int, width: int) -> Decoded:
    """Decode and resize an image of any kind, with 8 bits a channel as `decode_image`; errors as `open_any_image`."""
    opened = open_any_image(path, (4 * width, 4 * height))
    pixels = np.asarray(opened.image.resize((width, height), Image.Resampling.LANCZOS))
    return Decoded(pixels, opened.adjustments)


def open_any_image(path: Path, least: tuple[int, int] = (512, 1024)) -> Opened:
    """Decode an image of any kind that Pillow reads.

    Gray images of 16 or 32 bits, as of thermal cameras, are scaled from their own darkest to their own brightest pixel.
    Orientation tags are not applied. A huge JPEG is read at half, a quarter or an eighth of its size, if that is larger
    than `least` (width, height), so decoding takes at most 150 MB.

    Raises:
        OSError: The file is missing, truncated, or no image.
        ValueError: It is unreasonably large.
    """
    adjustments = set()
    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
            if image.format == "JPEG" and pixels > LARGE_JPEG:
                image.draft("RGB", least)
            elif pixels > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")
            if getattr(image, "n_frames", 1) > 1:
                adjustments.add(Adjustment.FIRST_FRAME)
            if image.mode.startswith(DEEP_MODES):
                adjustments.add(Adjustment.SCALED)
                return Opened(_scaled(image), frozenset(adjustments))
            if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                adjustments.add(Adjustment.OTHER_COLOURS)
            return Opened(image.convert("RGB"), frozenset(adjustments))
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except _DAMAGE as error:
        raise OSError(f"damaged image file: {error}") from error


def _scaled(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
    darkest, brightest = values.min(), values.max()
    shares = (values - darkest) / max(brightest - darkest, np.finfo(np.float32).tiny)
    return Image.fromarray(np.rint(255 * shares).astype(np.uint8)).convert("RGB")


def unreadable_images(tables: Iterable[ImageTable], *, workers: int | None = None) -> tuple[Unreadable, ...]:
    """Decode every image of the tables once, writing nothing, and return those that a store would refuse."""
    images = tuple(dict.fromkeys((table.root, path) for table in tables for path in table.paths))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        problems = pool.map(_decode, images)
        return tuple(
            problem for problem in progress(problems, "decode images", total=len(images), unit="images") if problem
        )


def _decode(image: tuple[Path, str]) -> Unreadable | None:
    root, path = image
    try:
        decode_image(root / path, 1, 1)
    except (OSError, ValueError) as error:
        return Unreadable(path, reason_of(error))
    return None
