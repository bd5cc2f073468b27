"""Values of images of more than 8 bits a channel, with both bytes of 16-bit colours, of which Pillow keeps one.

Pillow names the order of two bytes in the raw mode of an image: with the other order, the same file yields the lower
byte in place of the upper one.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from io import BufferedReader, BytesIO
from typing import Final

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageFile, TiffImagePlugin

OpenFile = BufferedReader | BytesIO
_DEEP_MODES = ("I", "F")  # prefixes of Pillow's modes of 16 bits and more; converting them to 8 bits would clip
_KINDS: Final = {"I": np.float64, "F": np.float32}  # of Pillow's modes; others, such as "I;16B", are of 16 bits
_PAIRED_BYTES: Final = ("PNG", "TIFF")
_FOREIGN = "B" if sys.byteorder == "little" else "L"
_LOWER_BYTE: Final = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("L", "B"), ("B", "L"), ("N", _FOREIGN))
}
"""Raw modes of the lower bytes, by those of the upper ones."""
_GREY_ALPHA: Final = {"LA;16B": "RGBA"}
"""Grey and alpha of two bytes each, read as four channels of one byte."""
_SIZE_MARKER, _DEPTH = b"\xff\x4f\xff\x51", 42
"""Begins a JPEG 2000 codestream; the position of its first channel's depth less one, behind."""
_JPEG_2000_HEAD = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class DeepPixels:
    """The values of an image, as its file has them, and how opaque its pixels are; None: all of them are."""

    values: Shaped[np.ndarray, "height width channels"]  # 16-bit unsigned integers or floating point
    opacity: UInt8[np.ndarray, "height width"] | None = None


class Depth(Enum):
    """How the bits of an image beyond 8 a channel are reached."""

    EIGHT = "none"
    WIDE = "Pillow has one channel with all bits"
    GREY_ALPHA = "grey and alpha of two bytes each, loaded as four bytes"
    COLOURS = "colours of two bytes each, loaded twice"
    LOST = "Pillow keeps the upper 8"


def prepare(image: Image.Image, file: OpenFile) -> Depth:
    """Find out about the depth of an image that was opened from a file, and have Pillow load what is needed.

    Call it before anything that loads the image, such as `getexif` of a PNG.

    Raises:
        ValueError: An unsupported kind of TIFF.
    """
    if image.mode.startswith(_DEEP_MODES):
        return Depth.WIDE
    if image.format == "JPEG2000":
        return Depth.LOST if _is_deep_jpeg_2000(file) else Depth.EIGHT
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return Depth.EIGHT
    modes = {_raw_mode(tile) for tile in image.tile}
    planes = _planes(image)
    if planes and not modes <= planes.keys():
        raise ValueError(unsupported_tiff("16-bit channels in separate planes, with premultiplied colours"))
    if planes or (image.format in _PAIRED_BYTES and modes <= _LOWER_BYTE.keys() and not _is_planar(image)):
        _set_raw_modes(image, planes)
        return Depth.COLOURS
    if modes <= _GREY_ALPHA.keys() and image.mode == "RGBA":
        _set_raw_modes(image, _GREY_ALPHA)
        return Depth.GREY_ALPHA
    return Depth.LOST if any(map(_keeps_upper_bits, image.tile)) else Depth.EIGHT


def deep_pixels(image: Image.Image, file: OpenFile, depth: Depth) -> DeepPixels | None:
    """The values of a prepared and loaded image of one or three channels; None if only 8 bits are reached.

    Errors: as `Image.load`. Cost: colours are decoded for a second time.
    """
    match depth:
        case Depth.WIDE:
            values = np.asarray(image)[..., None]
            values = values.astype(_KINDS.get(image.mode, np.uint16), copy=False)
        case Depth.GREY_ALPHA:
            four = np.asarray(image)
            values = _joined(four[..., ::2], four[..., 1::2])
        case Depth.COLOURS:
            values = _joined(np.asarray(image), _lower_bytes(file))
        case _:
            return None
    if values.shape[-1] in (2, 4):
        return DeepPixels(values[..., :-1], to_opacity(values[..., -1]))
    return DeepPixels(values, _opacity_by_key(values, image))


def unsupported_tiff(what: str) -> str:
    """The reason that a TIFF cannot be read."""
    return f"an unsupported kind of TIFF ({what}): save it with one channel of 16-bit integers or 32-bit floats"


def to_opacity(alpha: np.ndarray) -> UInt8[np.ndarray, "height width"]:
    """An alpha channel of 16 bits in 8; only pixels of alpha 0 become 0, only those of 65,535 become 255.

    >>> to_opacity(np.array([[0, 1, 32_768, 65_534, 65_535]])).tolist()
    [[0, 1, 128, 254, 255]]
    """
    rounded = np.rint(alpha / 257).clip(1, 254)
    return np.select([alpha == 0, alpha == 65_535], [0, 255], rounded).astype(np.uint8)


def _is_deep_jpeg_2000(file: OpenFile) -> bool:
    position = file.tell()
    file.seek(0)
    head = file.read(_JPEG_2000_HEAD)
    file.seek(position)
    depth = head.find(_SIZE_MARKER) + _DEPTH
    return _DEPTH <= depth < len(head) and (head[depth] & 0x7F) > 7


def _keeps_upper_bits(tile: ImageFile._Tile) -> bool:
    is_deep_ppm = tile.codec_name.startswith("ppm") and isinstance(tile.args, tuple) and tile.args[-1] > 255
    return is_deep_ppm or ";16" in _raw_mode(tile) or tile.codec_name == "SGI16"


def _lower_bytes(file: OpenFile) -> UInt8[np.ndarray, "height width channels"]:
    file.seek(0)
    with Image.open(file) as image:
        assert isinstance(image, ImageFile.ImageFile)
        planes = _planes(image)
        _set_raw_modes(image, {plane: _swapped(mode) for plane, mode in planes.items()} or _LOWER_BYTE)
        return np.asarray(image)


def _raw_mode(tile: ImageFile._Tile) -> str:
    return tile.args if isinstance(tile.args, str) else str(tile.args[0]) if tile.args else ""


def _set_raw_modes(image: ImageFile.ImageFile, modes: Mapping[str, str]) -> None:
    """Replace raw modes of an image that is not yet loaded; those without an entry stay."""
    for position, tile in enumerate(image.tile):
        mode = modes.get(_raw_mode(tile), _raw_mode(tile))
        arguments = mode if isinstance(tile.args, str) else (mode, *(tile.args or ())[1:])
        image.tile[position] = tile._replace(args=arguments)


def _is_planar(image: Image.Image) -> bool:
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(284, 1) == 2


def _planes(image: Image.Image) -> Mapping[str, str]:
    """Raw modes of a TIFF whose channels of 16 bits follow each other, uncompressed: Pillow would read their bytes."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not _is_planar(image):
        return {}
    if 16 not in image.tag_v2.get(258, ()) or any(tile.codec_name != "raw" for tile in image.tile):
        return {}
    order = "L" if image.tag_v2.prefix == b"II" else "B"
    return {plane: f"{plane};16{order}" for plane in "RGBA"}


def _swapped(mode: str) -> str:
    return mode[:-1] + ("B" if mode.endswith("L") else "L")


def _joined(upper: UInt8[np.ndarray, "..."], lower: UInt8[np.ndarray, "..."]) -> np.ndarray:
    """Two bytes as one number."""
    joined: np.ndarray = upper.astype(np.uint16) << 8 | lower
    return joined


def _opacity_by_key(values: np.ndarray, image: Image.Image) -> UInt8[np.ndarray, "height width"] | None:
    """Pixels of the value that a PNG names as transparent."""
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None:
        return None
    return np.where((values == np.asarray(key)).all(axis=-1), 0, 255).astype(np.uint8)
