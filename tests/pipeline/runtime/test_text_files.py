"""Text files in the encodings that programs save."""

import codecs
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.runtime.text_files import read_text

TEXT = "réglages\nseed = 3\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.txt", kind="list", origin="") == TEXT


def test_big_endian_text_with_a_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"))
    assert read_text(tmp_path / "a.txt", kind="list", origin="") == TEXT


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"ok\nr\xe9glages\r\n", r"a.txt:2: not UTF-8: byte 0xe9 in r\xe9glages", "save it as UTF-8"),
        (codecs.BOM_UTF8 + b"ok\n\xff\n", r"a.txt:2: not UTF-8: byte 0xff in \xff", "save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "a.txt:1: not UTF-8: UTF-16 without a byte order mark", "save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "a.txt:1: not UTF-16-LE, as its byte order mark announces", "save it as UTF-8"),
        (b"PK\x03\x04rest", "a.txt is a spreadsheet (.xlsx) or a zip archive", "save the spreadsheet as CSV"),
        (b"\xd0\xcf\x11\xe0rest", "a.txt is a spreadsheet of an old format (.xls)", "save the spreadsheet as CSV"),
        (b"\x1f\x8brest", "a.txt is compressed by gzip", "unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a.txt is a Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "a.txt is a web page", "download the file itself"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_text(tmp_path / "a.txt", kind="list", origin="", error=ConfigError)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_missing_file_is_named_with_one_that_looks_like_it(tmp_path: Path) -> None:
    (tmp_path / "Site.csv").touch()
    with pytest.raises(DataError, match=r"there is no list .*/site\.csv; '.*/Site\.csv' is there") as caught:
        read_text(tmp_path / "site.csv", kind="list", origin="write one")
    assert caught.value.hint == "write one"
    with pytest.raises(DataError, match=r"there is no list .*/other\.csv$"):
        read_text(tmp_path / "other.csv", kind="list", origin="")
