"""TIFFs of numbers that Pillow does not read, such as 64-bit floating point: it decodes their bytes as grey pixels."""

import struct
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import Final

import numpy as np
from PIL import Image, TiffImagePlugin

from pipeline.data.deep_channels import DeepPixels, OpenFile, to_opacity, unsupported_tiff

_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0")
_FOREIGN_BIG = b"MM\0+"  # Pillow reads its directory as that of a small file
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_ORIENTATION, _CHANNELS, _PLANES, _PREDICTOR, _TILE_WIDTH, _EXTRA, _FORMAT = 274, 277, 284, 317, 322, 338, 339
_RENAMED: Final = (_ORIENTATION, _EXTRA, 700)  # Pillow would turn the pixels (700: XMP), or expect more channels
_UNUSED = 65_000  # of the numbers free for private use
_LOSSLESS: Final = (1, 5, 8, 32_773, 32_946, 50_000)  # none, LZW, deflate, PackBits, deflate, Zstandard
_LETTERS: Final = {1: "u", 2: "i", 3: "f"}
_NAMES: Final = {1: "unsigned integers", 2: "signed integers", 3: "floating point"}
_LARGEST = 1 << 30  # bytes; a file is read as a whole


@dataclass(frozen=True, slots=True, eq=False)
class TiffNumbers:
    """The first page of a file, stored without turning it, its orientation tag, and whether other pages follow."""

    pixels: DeepPixels
    orientation: int
    has_more: bool


def tiff_numbers(file: OpenFile, most_pixels: int) -> TiffNumbers | None:
    """The numbers of a TIFF that Pillow cannot identify; None for another kind of file, or a damaged directory.

    Integers of 16 to 64 bits and floating point of 16 to 64 bits, with one channel or three, without loss; an alpha
    channel of 16-bit integers.

    Raises:
        ValueError: It is another kind of TIFF, or has more than `most_pixels`.
        OSError: Its pixels are damaged.

    Cost: three times the bytes of the file.
    """
    if (directory := _directory(file)) is None:
        return None
    tags, first = directory
    width, height, channels = int(tags[_WIDTH]), int(tags[_HEIGHT]), int(tags.get(_CHANNELS, 1))
    kind = _kind_of(tags)
    if kind is None:
        raise ValueError(unsupported_tiff(_described(tags)))
    if width * height > most_pixels or file.seek(0, SEEK_END) > _LARGEST:
        raise ValueError(f"{width} x {height} pixels, more than {most_pixels:,}, or a file of more than 1 GiB")
    file.seek(0)
    changes = {_WIDTH: width, _TILE_WIDTH: int(tags.get(_TILE_WIDTH, 0))}
    changes = {tag: value * channels * kind.itemsize for tag, value in changes.items()}
    as_bytes = _changed(bytearray(file.read()), first, changes | {_BITS: 8, _CHANNELS: 1, _FORMAT: 1, _PHOTOMETRIC: 1})
    with Image.open(BytesIO(as_bytes)) as image:
        rows = np.ascontiguousarray(np.asarray(image))
    values = rows.view(kind).reshape(height, width, channels)
    return TiffNumbers(_as_deep(values, bool(tags.get(_EXTRA))), int(tags.get(_ORIENTATION, 1)), tags.next != 0)


def tiff_size(file: OpenFile) -> tuple[int, int] | None:
    """Width and height from the header of a file that `tiff_numbers` may read; None and errors as there."""
    directory = _directory(file)
    return None if directory is None else (int(directory[0][_WIDTH]), int(directory[0][_HEIGHT]))


def _directory(file: OpenFile) -> tuple[TiffImagePlugin.ImageFileDirectory_v2, int] | None:
    """The tags of the first page, and the byte where they begin; None without those of an image."""
    file.seek(0)
    start = file.read(16)
    if start.startswith(_FOREIGN_BIG):
        raise ValueError(unsupported_tiff("big-endian BigTIFF"))
    if not start.startswith(_MAGIC):
        return None
    tags = TiffImagePlugin.ImageFileDirectory_v2(start if start[2] == 43 else start[:8])
    first = file.seek(tags.next)
    tags.load(file)
    return (tags, first) if {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC} <= tags.keys() else None


def _kind_of(tags: TiffImagePlugin.ImageFileDirectory_v2) -> np.dtype | None:
    """The type of the values, if this module reads them."""
    channels, extra = int(tags.get(_CHANNELS, 1)), tags.get(_EXTRA, ())
    bits, formats = set(tags[_BITS]), set(tags.get(_FORMAT, (1,)))
    simple = (
        len(bits) == len(formats) == 1
        and tags.get(_COMPRESSION, 1) in _LOSSLESS
        and tags.get(_PREDICTOR, 1) == tags.get(_FILL_ORDER, 1) == 1
        and (channels == 1 or tags.get(_PLANES, 1) == 1)
        and tags[_PHOTOMETRIC] == (1 if channels - len(extra) == 1 else 2)
        and channels - len(extra) in (1, 3)
    )
    bit, form = bits.pop(), formats.pop()
    if not simple or bit not in (16, 32, 64) or form not in _LETTERS:
        return None
    if extra and (extra != (2,) or (bit, form) != (16, 1)):
        return None
    return np.dtype(f"{'<' if tags.prefix == b'II' else '>'}{_LETTERS[form]}{bit // 8}")


def _as_deep(values: np.ndarray, has_alpha: bool) -> DeepPixels:
    is_short = values.dtype.kind == "u" and values.dtype.itemsize == 2
    deep = values.astype(np.uint16 if is_short else np.float32 if values.dtype.itemsize < 4 else np.float64)
    return DeepPixels(deep[..., :-1], to_opacity(values[..., -1])) if has_alpha else DeepPixels(deep)


def _changed(file: bytearray, first: int, changes: dict[int, int]) -> bytearray:
    """A file whose directory, at byte `first`, has other values."""
    order = "<" if file.startswith(b"II") else ">"
    count_form, step = ("Q", 20) if file[2] == 43 else ("H", 12)
    (count,) = struct.unpack_from(order + count_form, file, first)
    first += struct.calcsize(order + count_form)
    for entry in range(first, first + count * step, step):
        (tag,) = struct.unpack_from(order + "H", file, entry)
        if tag in _RENAMED:
            struct.pack_into(order + "H", file, entry, _UNUSED)
        elif tag in changes:  # one value of the type LONG
            struct.pack_into(order + ("HQI" if step == 20 else "HII"), file, entry + 2, 4, 1, changes[tag])
    return file


def _described(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    channels = int(tags.get(_CHANNELS, 1))
    form = _NAMES.get(tags.get(_FORMAT, (1,))[0], "numbers of another kind")
    planes = " in separate planes" if channels > 1 and tags.get(_PLANES, 1) != 1 else ""
    coded = "" if tags.get(_COMPRESSION, 1) == 1 else ", compressed"
    return f"{channels} channel{'s' * (channels > 1)} of {tags[_BITS][0]}-bit {form}{planes}{coded}"
