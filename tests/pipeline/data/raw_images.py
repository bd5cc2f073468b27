"""PNG and TIFF files of values that Pillow cannot write, byte by byte."""

import struct
import zlib
from typing import Literal

import numpy as np

KINDS = {"u": 1, "i": 2, "f": 3}
GREY, COLOURS = 1, 2
ALPHA = 2
"""Of a TIFF's extra channel: opacity, by which the colours are not multiplied."""


def png_chunks(header: bytes, rows: bytes, *others: tuple[bytes, bytes]) -> bytes:
    parts = ((b"IHDR", header), *others, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_of(values: np.ndarray, *others: tuple[bytes, bytes]) -> bytes:
    """16-bit values, height x width x 1 to 4 channels, as a PNG."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_chunks(struct.pack(">2I5B", width, height, 16, kind, 0, 0, 0), rows, *others)


def tiff_of(
    values: np.ndarray,
    order: Literal["<", ">"] = "<",
    *,
    extra: int | None = None,
    planes: bool = False,
    deflate: bool = False,
    big: bool = False,
    tags: dict[int, int] | None = None,
) -> bytes:
    """Values of any type, height x width x channels, as a TIFF of two strips a plane (a strip is half of the rows)."""
    height, width, channels = values.shape
    halves = [values[..., [one]] for one in range(channels)] if planes else [values]
    halves = [half for plane in halves for half in (plane[: height // 2], plane[height // 2 :])]
    strips = [half.astype(values.dtype.newbyteorder(order)).tobytes() for half in halves]
    strips = [zlib.compress(strip) if deflate else strip for strip in strips]
    starts = np.cumsum([16, *map(len, strips)]).tolist()
    entries = {
        256: [width], 257: [height], 258: [8 * values.dtype.itemsize] * channels, 259: [8 if deflate else 1],
        262: [COLOURS if channels > 2 else GREY], 273: starts[:-1], 277: [channels], 278: [height // 2],
        279: [len(strip) for strip in strips], 284: [2 if planes else 1], 339: [KINDS[values.dtype.kind]] * channels,
    }  # fmt: skip
    entries |= {338: [extra]} if extra is not None else {}
    entries |= {tag: [value] for tag, value in (tags or {}).items()}
    directory, far = starts[-1], b""
    size, room = ("Q", 8) if big else ("I", 4)
    lists_at = directory + struct.calcsize(order + ("Q" if big else "H")) + (12 + (room - 4) * 2) * len(entries) + room
    table = struct.pack(order + ("Q" if big else "H"), len(entries))
    for tag, numbers in sorted(entries.items()):
        kind, letter = (3, "H") if tag in (258, 259, 262, 274, 277, 284, 317, 338, 339) else (4, "I")
        stored = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(stored) > room:
            place = struct.pack(order + size, lists_at + len(far))
            far += stored
        else:
            place = stored.ljust(room, b"\0")
        table += struct.pack(order + "HH" + size, tag, kind, len(numbers)) + place
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, directory) if big else struct.pack(order + "HI", 42, directory)
    return (mark + head).ljust(16, b"\0") + b"".join(strips) + table + bytes(room) + far
