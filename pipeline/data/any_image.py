"""Images as cameras and people deliver them: more kinds than a data set holds, decoded within bounds."""

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.data.decoding import DEEP_MODES

MOST_PIXELS = 50_000_000
"""Of an image that has to be decoded in full, 150 MB as colours."""
LARGE_JPEG = 16_000_000
"""Pixels from which on a JPEG is decoded at a part of its size: smaller ones give what a data set's images give."""
_DAMAGE = (SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error)
"""What Pillow's decoders raise, besides OSError and ValueError, when a file is not what its first bytes promise."""


class Adjustment(StrEnum):
    """What was done to an image that is not shown as it is."""

    SCALED = "more than 8 bits a channel: scaled so that its darkest pixel is black and its brightest white"
    FIRST_FRAME = "several frames: the first one is taken"
    OTHER_COLOURS = "other colours than red, green and blue: converted"


@dataclass(frozen=True, slots=True)
class Opened:
    """An image in red, green and blue, and what had to be done to it."""

    image: Image.Image
    adjustments: frozenset[Adjustment]


@dataclass(frozen=True, slots=True)
class Decoded:
    """The pixels of an image at the wanted size, and what had to be done to them."""

    pixels: UInt8[np.ndarray, "height width 3"]
    adjustments: frozenset[Adjustment]


def decode_any_image(path: Path, height: int, width: int) -> Decoded:
    """Decode and resize an image of any kind that Pillow reads.

    For an image of 8 bits a channel in colours or grey this gives what `decode_image` gives.

    Args:
        path: The file.
        height: Rows of the result, pixels.
        width: Columns of the result, pixels.

    Raises:
        OSError: As for `open_any_image`.
        ValueError: Likewise.

    Cost:
        That of `decode_image`.
    """
    opened = open_any_image(path, (4 * width, 4 * height))
    pixels = np.asarray(opened.image.resize((width, height), Image.Resampling.LANCZOS))
    return Decoded(pixels, opened.adjustments)


def open_any_image(path: Path, least: tuple[int, int] = (512, 1024)) -> Opened:
    """Decode an image of any kind that Pillow reads.

    Grey images of 16 or 32 bits, as thermal cameras write them, are scaled from their own darkest to their own
    brightest pixel. Orientation tags are not applied, since detectors' boxes were cut without them.

    Args:
        path: The file.
        least: Width and height that are enough: a huge JPEG is read at half, a quarter or an eighth of its size, as
            long as it stays larger.

    Raises:
        OSError: The file is missing, cut short, or no image.
        ValueError: It is unreasonably large.

    Cost:
        At most 150 MB for a moment; a JPEG of 100 megapixels takes 5.
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
