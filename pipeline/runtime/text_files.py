"""Text files of users: UTF-8, or UTF-16 with a byte order mark; other content is named in one sentence."""

import codecs
from pathlib import Path

from pipeline.errors import DataError, VireidError
from pipeline.runtime.names import similar_path

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHERS = {
    b"PK\x03\x04": ("a spreadsheet (.xlsx) or a zip archive", "save the spreadsheet as CSV in UTF-8, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet of an old format (.xls)", "save the spreadsheet as CSV in UTF-8"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it"),
    b"%PDF": ("a PDF", "save it as UTF-8 text"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file with `git lfs pull`"),
    b"<!doctype html": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
}
_SHOWN = 60
_UTF8 = "save it as UTF-8"


def read_text(path: Path, *, kind: str, origin: str, error: type[VireidError] = DataError) -> str:
    """Read a text file without its byte order mark; line ends are kept, because file names may contain them.

    Raises:
        VireidError: As `error`: the file (a `kind`) is missing (with `origin` as the hint), unreadable, or not UTF-8;
            the line is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        alike = similar_path(path)
        there = "" if alike is None else f"; {str(alike)!a} is there, whose name differs in case or invisibly"
        raise error(f"there is no {kind} {path}{there}", hint=origin) from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}", hint="check the file") from problem
    start = content[:64].lstrip().lower()
    for signature, (what, advice) in _OTHERS.items():
        if start.startswith(signature.lower()):
            raise error(f"{path} is {what}, not a text file", hint=advice)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and content[:1024].count(b"\0") * 4 > len(content[:1024]):
        raise error(f"{path.name}:1: not UTF-8: UTF-16 without a byte order mark, or no text", hint=_UTF8)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as problem:
        raise error(f"{path.name}:{_place(problem)}", hint=_UTF8) from problem


def _place(problem: UnicodeDecodeError) -> str:
    """Line and reason; of UTF-8 also the line's text, with escapes for its other bytes."""
    if problem.encoding != "utf-8":
        return f"1: not {problem.encoding.upper()}, as its byte order mark announces: {problem.reason}"
    content = problem.object
    before = content.rfind(b"\n", 0, problem.start) + 1
    line = content.count(b"\n", 0, problem.start) + 1
    shown = content[max(before, problem.start - _SHOWN) : problem.end + _SHOWN].partition(b"\n")[0]
    text = shown.rstrip(b"\r").decode("utf-8", "backslashreplace")
    return f"{line}: not UTF-8: byte 0x{content[problem.start]:02x} in {text}"
