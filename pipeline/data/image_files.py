"""One way of reading image files, of every kind that Pillow reads, for training and for every other use."""

import logging
import math
import stat
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from pipeline.config.datasets import DeepRange, Orientation
from pipeline.data.deep_channels import DeepPixels, Depth, OpenFile, deep_pixels, prepare
from pipeline.data.deep_images import to_eight_bits
from pipeline.data.image_names import needs_plugin, register_plugins
from pipeline.data.tiff_numbers import tiff_numbers, tiff_size

logger = logging.getLogger(__name__)

MOST_PIXELS = 50_000_000  # of an image that is decoded in full, 150 MB as RGB
LARGE_JPEG = 16_000_000  # pixels; a larger JPEG is decoded at a part of its size
BACKGROUND = "white"
FEW_LEVELS = 64  # grey levels that are few for an image that had more than 256
_DRAWINGS = ("EPS", "WMF")
_VIDEOS = (b"mp4", b"iso", b"avc1", b"M4V", b"qt  ", b"3gp")  # kinds of MPEG-4 files
_ORIENTATION = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK: Final = _TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_DAMAGE = (
    SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip
"""Errors of Pillow's decoders, besides OSError and ValueError, for a file that does not match its first bytes."""
_DAMAGED_TAGS = (*_DAMAGE, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class ImageReading:
    """How image files become pixels: settings `data.orientation` and `data.deep_range`."""

    orientation: Orientation = "apply"
    deep_range: DeepRange = "image"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, for records."""
        deep_range = self.deep_range if self.deep_range == "image" else list(self.deep_range)
        return {"orientation": self.orientation, "deep_range": deep_range, "background": BACKGROUND}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ImageReading":
        """The reading of a record."""
        if record["deep_range"] == "image":
            return cls(record["orientation"])
        low, high = record["deep_range"]
        return cls(record["orientation"], (float(low), float(high)))

    @property
    def suffix(self) -> str:
        """Ends the digest of an encoder: empty for the default."""
        turned = "" if self.orientation == "apply" else f"-orientation-{self.orientation}"
        return turned if self.deep_range == "image" else f"{turned}-range{self.deep_range[0]}:{self.deep_range[1]}"


AS_STORED = ImageReading(orientation="ignore")
"""How published data sets are read."""
FROM_ANYWHERE = ImageReading()
"""How image files of users are read."""


def search_reading(orientation: Orientation | None, deep_range: DeepRange) -> ImageReading:
    """How image files from anywhere are read by the encoder of a run: as in training where its settings name a way."""
    return ImageReading(orientation or "apply", deep_range)


class Adjustment(StrEnum):
    """A conversion that an image needed, or a property that reading ignores."""

    SCALED = "more than 8 bits a channel: scaled from the darkest to the brightest pixel of each, without outliers"
    SCALED_BY_RANGE = "more than 8 bits a channel: scaled by data.deep_range"
    OUT_OF_RANGE = "no pixel inside data.deep_range: black or white everywhere"
    UPPER_BITS = "more than 8 bits a channel that are not reached: reduced to the upper 8"
    FEW_LEVELS = f"been reduced to 8 bits: fewer than {FEW_LEVELS} grey levels are left"
    TURNED = "an orientation tag: applied"
    NOT_TURNED = "an orientation tag that is not applied"
    COMPOSITED = f"transparent pixels: composited on {BACKGROUND}"
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


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image file that cannot be decoded, and the reason."""

    path: str
    reason: str


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Silence Pillow's warnings of large images, bounded here by `MOST_PIXELS`, and of damaged metadata.

    Enter it outside of worker threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def decode_image(source: Path | bytes, height: int, width: int, reading: ImageReading) -> Decoded:
    """Decode an image to RGB and resize it, without a crop; errors as `open_image`."""
    opened = open_image(source, reading, (4 * width, 4 * height))
    return Decoded(np.asarray(opened.image.resize((width, height), Image.Resampling.LANCZOS)), opened.adjustments)


def open_image(source: Path | bytes, reading: ImageReading, least: tuple[int, int] = (512, 1024)) -> Opened:
    """Decode an image of any kind that Pillow reads to RGB; one-channel (infrared) images are repeated.

    * `source` is a file, or its bytes.
    * Images of more than 8 bits a channel are scaled by `deep_range`: from their own darkest to their own brightest
      value without outliers, of all channels, or from one fixed value to another. TIFFs of 64-bit numbers are included.
    * Orientation tags are applied, or ignored as for detector crops, whose boxes were cut without them.
    * Transparent pixels are composited on white; of several frames the first is taken.
    * A huge JPEG is read at half, a quarter or an eighth of its size, if that is larger than `least` (width, height).

    Raises:
        OSError: The file is missing, truncated, or no image.
        ValueError: It is unreasonably large, an unsupported kind of TIFF, or no pixel has a finite value.

    Cost: at most 150 MB for 8-bit images.
    """
    with _explained(source) as file:
        try:
            with Image.open(file) as image:
                _require_decodable(image)
                return _read(image, file, reading, least)
        except UnidentifiedImageError:
            if (numbers := _read_numbers(file, reading)) is None:
                raise
            return numbers


def count_pixels(source: Path | bytes) -> int:
    """Width times height of an image, read from its header; errors as `open_image`, but for damage behind the header.

    Cost: a millisecond; nothing is decoded.
    """
    with _explained(source) as file:
        try:
            with Image.open(file) as image:
                _require_decodable(image)
                return image.width * image.height
        except UnidentifiedImageError:
            if (size := tiff_size(file)) is None:
                raise
            return math.prod(size)


@contextmanager
def _explained(source: Path | bytes) -> Iterator[OpenFile]:
    """The open file; errors of Pillow become an OSError or a ValueError with the reason."""
    register_plugins()
    # As a file: of a path, Pillow maps grey TIFFs into memory, and turned ones come out as stripes.
    opened = BytesIO(source) if isinstance(source, bytes) else _regular_file(source)
    try:
        with opened as file:
            yield file
    except UnidentifiedImageError as error:
        raise OSError(_identified(source)) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise OSError(f"damaged image file: {error}") from error
    except _DAMAGE as error:
        raise OSError(f"damaged image file: {error}") from error


def _regular_file(path: Path) -> OpenFile:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for its writer
        raise OSError("not a regular file")
    return path.open("rb")


def _read_numbers(file: OpenFile, reading: ImageReading) -> Opened | None:
    """A TIFF that Pillow cannot identify, read all the same; None for other files."""
    found = tiff_numbers(file, MOST_PIXELS)
    if found is None:
        return None
    seen = {Adjustment.FIRST_FRAME} if found.has_more else set()
    colours = _scaled(found.pixels, reading.deep_range, seen)
    if found.orientation in _TURNS:
        colours = _turned(colours, found.orientation, True, reading, seen)
    return Opened(colours, frozenset(seen))


def _require_decodable(image: Image.Image) -> None:
    if image.format in _DRAWINGS:  # Pillow starts another program for them
        raise ValueError(f"a drawing of the kind {image.format}, not an image of pixels")
    if image.width * image.height > MOST_PIXELS and not _is_large_jpeg(image):
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}")


def _is_large_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO") and image.width * image.height > LARGE_JPEG


def _read(image: Image.Image, file: OpenFile, reading: ImageReading, least: tuple[int, int]) -> Opened:
    seen = set()
    if getattr(image, "is_animated", False):
        seen.add(Adjustment.FIRST_FRAME)
    depth = prepare(image, file)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        seen.add(Adjustment.OTHER_COLOURS)
    turn = _orientation(image)
    if _is_large_jpeg(image):
        image.draft("RGB", least[::-1] if turn >= 5 else least)
    image.load()
    if (deep := deep_pixels(image, file, depth)) is not None:
        colours = _scaled(deep, reading.deep_range, seen)
    elif image.has_transparency_data:
        colours = _composited(image, seen)
    else:
        colours = image.convert("RGB")
    if depth is Depth.LOST:
        seen.add(Adjustment.UPPER_BITS)
        if np.count_nonzero(colours.convert("L").histogram()) < FEW_LEVELS:
            seen.add(Adjustment.FEW_LEVELS)
    if turn in _TURNS:
        colours = _turned(colours, turn, _orientation(image) == turn, reading, seen)
    return Opened(colours, frozenset(seen))


def _orientation(image: Image.Image) -> int:
    """The orientation tag; 1 (upright) if there is none or its block is damaged."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGED_TAGS:
        return 1
    return found if isinstance(found, int) else 1


def _turned(image: Image.Image, turn: int, pending: bool, reading: ImageReading, seen: set[Adjustment]) -> Image.Image:
    """Apply an orientation, or undo it; `pending` is False if Pillow has applied it, as to TIFF."""
    applies = reading.orientation == "apply"
    seen.add(Adjustment.TURNED if applies else Adjustment.NOT_TURNED)
    if applies == (not pending):
        return image
    return image.transpose((_TURNS if applies else _BACK)[turn])


def _scaled(deep: DeepPixels, deep_range: DeepRange, seen: set[Adjustment]) -> Image.Image:
    """Deep pixels in 8 bits; fully transparent ones have no influence on the limits."""
    values, opacity = deep.values, deep.opacity
    if (values == values[..., :1]).all():  # grey that was saved as colours
        values = values[..., :1]
    counted = opacity > 0 if opacity is not None and opacity.any() else None
    shades, inside = to_eight_bits(values, None if deep_range == "image" else deep_range, counted)
    seen.add(Adjustment.SCALED if deep_range == "image" else Adjustment.SCALED_BY_RANGE)
    if not inside:
        seen.add(Adjustment.OUT_OF_RANGE)
    colours = Image.fromarray(np.squeeze(shades, axis=2) if shades.shape[2] == 1 else shades).convert("RGB")
    if opacity is None:
        return colours
    colours.putalpha(Image.fromarray(opacity))
    return _composited(colours, seen)


def _composited(image: Image.Image, seen: set[Adjustment]) -> Image.Image:
    """The image on the background; without a transparent pixel the bytes of its colours are kept."""
    layers = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if not any(layers.getchannel("A").histogram()[:255]):
        return image.convert("RGB")
    seen.add(Adjustment.COMPOSITED)
    return Image.alpha_composite(Image.new("RGBA", layers.size, BACKGROUND), layers).convert("RGB")


def _identified(source: Path | bytes) -> str:
    """What a file is that Pillow cannot identify."""
    if isinstance(source, bytes):
        start, name = source[:256], ""
    else:
        with source.open("rb") as file:
            start, name = file.read(256), source.name
    if not start:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "no image, but a Git LFS pointer: fetch it with `git lfs pull`"
    if start[4:8] == b"ftyp" and start[8:].startswith(_VIDEOS):
        return "no image, but a video"
    if (start[4:8] == b"ftyp" and start[8:11] != b"avi") or needs_plugin(name):
        return "a kind of image that Pillow reads with a plugin only, such as pillow-heif"
    if not any(byte < 9 for byte in start):
        return "no image, but a text"
    return "no image that Pillow reads, or a damaged one"


def reason_of(error: OSError | ValueError) -> str:
    """The reason that an image could not be decoded, without its path."""
    return str((isinstance(error, OSError) and error.strerror) or error)


def adjustment_lines(seen: Counter[Adjustment], total: int) -> list[str]:
    """One sentence for each conversion, with the number of its images."""
    return [f"{seen[one]:,} of {total:,} images have {one}" for one in Adjustment if seen[one]]


def log_adjustments(seen: Counter[Adjustment], total: int) -> None:
    """Log one line for each conversion, with the number of its images."""
    for line in adjustment_lines(seen, total):
        logger.info("%s", line)
