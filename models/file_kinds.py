"""What a file is, by its first bytes: for messages about a file that is not what its reader expects."""

import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

TORCHSCRIPT = "a TorchScript archive"
STATE_DICT = "a file of torch.save"
SAFETENSORS = "a safetensors file"
PICKLE = "a pickle"
NPZ = "a .npz archive"
NPY = "a .npy array"
MATLAB = "a MATLAB file"
PARQUET = "a Parquet table"
SQLITE = "an SQLite database"
FOLDER = "a folder"
MISSING = "missing"
CUT_ZIP = "a zip archive, and its end is missing"
JSON, TEXT, UNKNOWN = "a JSON text", "a text", "of an unknown kind"
UNNAMED = (JSON, TEXT, UNKNOWN)
"""Kinds whose names add nothing to a message about a text."""

ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError, KeyError, IndexError, OverflowError,
    MemoryError,
)  # fmt: skip
"""What `zipfile` raises for damaged archives; NotImplementedError and UnicodeDecodeError are among them."""

_HARMLESS = 2**28
_MOST_TIMES = 100
_FIRST = 4096
_HEADER = 2**25  # bytes of a safetensors header; that of a model of 10,000 tensors has 1 MB
_UNPACK = "unpack it, and name the file that it contains"
_FETCH = "download the file itself; a page instead of it means a sign-in, a moved address, or an error"
_AGAIN = "download or write it again"

_BEGINNINGS: tuple[tuple[int, bytes, str, str | None], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "fetch the file: `git lfs pull`"),
    (0, b"\x93NUMPY", NPY, None),
    (0, b"\x89PNG\r\n", "a PNG image", None),
    (0, b"\xff\xd8\xff", "a JPEG image", None),
    (0, b"GIF8", "a GIF image", None),
    (0, b"BM", "a BMP image", None),
    (8, b"WEBP", "a WebP image", None),
    (4, b"ftyp", "a video, or an image in the form of phones", None),
    (0, b"%PDF-", "a PDF document", None),
    (0, b"\x89HDF\r\n", "an HDF5 file", None),
    (0, b"MATLAB 5.0", MATLAB, None),
    (0, b"SQLite format 3\0", SQLITE, None),
    (0, b"PAR1", PARQUET, None),
    (0, b"GGUF", "a GGUF model", None),
    (0, b"\x7fELF", "a program", None),
    (0, b"\xd0\xcf\x11\xe0", "a spreadsheet or document of old office programs", None),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"\xff\xfe", "a text in UTF-16", "save it as UTF-8"),
    (0, b"\xfe\xff", "a text in UTF-16", "save it as UTF-8"),
)
_IN_ZIP = (
    ("constants.pkl", TORCHSCRIPT), ("data.pkl", STATE_DICT), ("workbook.xml", "a spreadsheet"),
    ("document.xml", "a text document"), ("content.xml", "a document of an office program"), (".pt2", "a graph"),
    (".npy", NPZ),
)  # fmt: skip
_SPECIAL = (
    (stat.S_ISDIR, FOLDER, "name a file in it"), (stat.S_ISFIFO, "a pipe", None), (stat.S_ISCHR, "a device", None),
    (stat.S_ISBLK, "a device", None), (stat.S_ISSOCK, "a socket", None),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is, as `a web page`; `hint` is what helps whatever was expected, else None."""

    name: str
    hint: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def is_missing(self) -> bool:
        """Whether there is no file of that name."""
        return self.name == MISSING


def what_is(path: Path) -> FileKind:
    """The kind of a file. Reads its beginning, and of a zip archive the list of names; never raises."""
    try:
        found = path.stat()
        for is_kind, name, hint in _SPECIAL:
            if is_kind(found.st_mode):
                return FileKind(name, hint)
        with path.open("rb") as file:
            first = file.read(_FIRST)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return FileKind(MISSING)
    except OSError as error:
        return FileKind(f"not readable ({error.strerror})", "check its name and its permissions")
    if not first:
        return FileKind("empty", _AGAIN)
    if first.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path)
    for offset, beginning, name, hint in _BEGINNINGS:
        if first.startswith(beginning, offset):
            return FileKind(name, hint)
    if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= max(_HEADER, found.st_size):
        return FileKind(SAFETENSORS)
    if first[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return FileKind(PICKLE)
    return _text_kind(first)


def excess(path: Path) -> str | None:
    """Why a zip archive must not be unpacked: it claims far more bytes than it has; None if it does not.

    Raises:
        One of `ARCHIVE_ERRORS` if the archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    size = path.stat().st_size
    if claimed <= max(_HARMLESS, _MOST_TIMES * size):
        return None
    return f"{size:,} bytes that claim to become {claimed:,}"


def header_excess(path: Path) -> str | None:
    """Why the header of a safetensors file must not be read; None if it has a usual size."""
    with path.open("rb") as file:
        claimed = int.from_bytes(file.read(8), "little")
    return f"its header claims {claimed:,} bytes" if claimed > min(_HEADER, path.stat().st_size) else None


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ARCHIVE_ERRORS:
        return FileKind(CUT_ZIP, _AGAIN)
    for ending, kind in _IN_ZIP:
        if any(name.endswith(ending) for name in names):
            return FileKind(kind)
    return FileKind("a zip archive", _UNPACK)


def _text_kind(first: bytes) -> FileKind:
    if not any(first):
        return FileKind("filled with zeros", _AGAIN)
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return FileKind("a web page", _FETCH)
    if text.startswith((b"<?xml", b"<error")):
        return FileKind("an XML text", _FETCH)
    if b"\0" in first:
        return FileKind(UNKNOWN)
    try:
        first.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(first) - 4:
            return FileKind(UNKNOWN)
    return FileKind(JSON if text.startswith((b"{", b"[")) else TEXT)
