"""Reading arrays of `.npy` and `.npz` files: nothing is unpickled, and sizes are checked before memory is allocated."""

import math
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped

from models.file_kinds import ARCHIVE_ERRORS, NPY, NPZ, excess, what_is
from pipeline.errors import DataError

_ERRORS = (*ARCHIVE_ERRORS, TypeError, AttributeError, SyntaxError, RecursionError, TokenError, struct.error)
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PLAIN = "fiubcSU"
Array = Shaped[np.ndarray, "..."]


class _NotPlain(ValueError):
    """An array of Python objects or of records."""


def read_array(path: Path, hint: str, *, mapped: bool = False) -> Array:
    """Read a `.npy` file of plain numbers or strings; with `mapped` as a read-only memory map.

    Raises:
        DataError: The file is missing, something else, truncated, or too large for the memory; `hint` is its hint.
    """
    _require(path, NPY, hint)
    try:
        with path.open("rb") as file:
            claimed = _claimed(file, path.stat().st_size)
            if not mapped:
                _check_memory(claimed)
            file.seek(0)
            if not mapped or not claimed:
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
                return array
        mapped_array: Array = np.lib.format.open_memmap(path, mode="r")
    except _ERRORS as error:
        raise DataError(f"{path} {_reason(error)}", hint=hint) from error
    return mapped_array


def read_arrays(path: Path, names: Sequence[str], hint: str) -> tuple[dict[str, Array], list[str]]:
    """Read those of the named arrays that a `.npz` file has, after their checksums; and the names of all its arrays.

    Raises:
        DataError: As `read_array`; and an array is there twice, or the file claims to become far larger than it is.
    """
    _require(path, NPZ, hint)
    place, arrays = str(path), dict[str, Array]()
    try:
        too_large = excess(path)
        if too_large is not None:
            raise ValueError(f"is refused: {too_large}")
        with zipfile.ZipFile(path) as archive:
            entries = [
                (entry.filename.removesuffix(".npy"), entry)
                for entry in archive.infolist()
                if entry.filename.endswith(".npy")
            ]
            found = [name for name, _ in entries]
            if len(set(found)) < len(found):
                raise ValueError(f"holds {max(found, key=found.count)!r} twice")
            for name, entry in entries:
                if name in names:
                    place = f"{path}: `{name}`"
                    with archive.open(entry) as member:
                        _check_memory(_claimed(member, entry.file_size, exact=True))
                    with archive.open(entry) as member:
                        arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                        member.read(1)  # at its end, the checksum is compared
    except _ERRORS as error:
        raise DataError(f"{place} {_reason(error)}", hint=hint) from error
    return arrays, found


def read_all_arrays(path: Path, hint: str) -> dict[str, Array]:
    """Read all arrays of a `.npz` file. Raises as `read_arrays`."""
    _, names = read_arrays(path, (), hint)
    return read_arrays(path, names, hint)[0]


def _require(path: Path, expected: str, hint: str) -> None:
    kind = what_is(path)
    if kind.name != expected:
        raise DataError(
            f"there is no file {path}" if kind.is_missing else f"{path} is no {expected[2:]}: it is {kind}",
            hint=hint if kind.hint is None else kind.hint,
        )


def _claimed(file: BinaryIO | Any, size: int, *, exact: bool = False) -> int:
    """The bytes of an array, by its header; ValueError if the file has fewer."""
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise _NotPlain
    shape, _, dtype = _READERS[version](file)
    if dtype.kind not in _PLAIN:
        raise _NotPlain
    if any(length < 0 for length in shape):
        raise ValueError(f"claims the shape {list(shape)}")
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed > held or (exact and claimed != held):
        raise ValueError(f"is truncated: it claims {claimed:,} bytes of {list(shape)} and holds {held:,}")
    return claimed


def _check_memory(claimed: int) -> None:
    import psutil  # not above: files are named in help texts, too

    free = psutil.virtual_memory().available
    if claimed > free:
        raise ValueError(f"needs {claimed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


def _reason(error: BaseException) -> str:
    if isinstance(error, _NotPlain):
        return "holds no plain numbers or strings: objects would have to be unpickled, which can run code"
    text = str(error)
    own = ("claims", "is truncated", "needs", "is refused", "holds")
    if text.startswith(own):
        return text
    return f"is damaged: {text.partition(chr(10))[0] if 'pickle' not in text and text else 'its header cannot be read'}"
