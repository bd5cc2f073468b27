"""Lists of paths as other programs write them."""

import logging
from pathlib import Path

import pytest

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.data.path_list import read_path_list
from pipeline.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d e").mkdir()
    for name in ("d e/a.jpg", "b.jpg", "c,1.jpg", "b.jpg 7"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (r"d e\a.jpg", "d e/a.jpg"),
        (r".\d e\a.jpg", "./d e/a.jpg"),
        ('"d e/a.jpg"', "d e/a.jpg"),
        ("'d e/a.jpg'", "d e/a.jpg"),
        ("  d e/a.jpg\t", "d e/a.jpg"),
        ("d e/a.jpg 0", "d e/a.jpg"),
        ("d e/a.jpg 12 3", "d e/a.jpg"),
        ("d e/a.jpg,anna", "d e/a.jpg"),
        ("d e/a.jpg; anna b", "d e/a.jpg"),
        ("d e/a.jpg\t0", "d e/a.jpg"),
        ('"d e\\a.jpg" 0', "d e/a.jpg"),
        ('"d e/a.jpg",0', "d e/a.jpg"),
        ("c,1.jpg,0", "c,1.jpg"),
        ("b.jpg 7", "b.jpg 7"),  # a file of that name
        ("B.JPG", "b.jpg"),
        ("D E/a.jpg 0", "d e/a.jpg"),
        ("\ufeffb.jpg", "b.jpg"),
    ],
)
def test_a_line_is_the_path_of_a_file(root: Path, line: str, path: str) -> None:
    (root / "list.txt").write_text(f"# comment\r\n\r\n{line}\r\n", encoding="utf-16", newline="")
    assert read_path_list(root / "list.txt", root) == (path,)
    found = list_images(root / "list.txt", Modality.VISIBLE)
    assert found.root == root and found.paths == (path,)


def test_addresses_of_files_and_the_home_folder_are_paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    file = root / "list.txt"
    file.write_text(f"file://{root}/d%20e/a.jpg\n~/b.jpg\n{root}/c,1.jpg\n")
    assert read_path_list(file, root / "d e") == (f"{root}/d e/a.jpg", f"{root}/b.jpg", f"{root}/c,1.jpg")


def test_a_header_and_labels_are_ignored_with_a_note(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "list.txt").write_text("path,label\nb.jpg,1\nd e/a.jpg,2\nb.jpg,3\n")
    with caplog.at_level(logging.INFO):
        assert read_path_list(root / "list.txt", root) == ("b.jpg", "d e/a.jpg")
    assert "text behind the path is ignored in 3 lines: 'b.jpg,1'" in caplog.text


def test_one_path_without_a_file_stays_as_it_is_written(root: Path) -> None:
    (root / "list.txt").write_text("b.jpg\ngone\\x.jpg\n" + "y" * 300 + ".jpg\n")
    assert read_path_list(root / "list.txt", root) == ("b.jpg", "gone/x.jpg", "y" * 300 + ".jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "x/a.jpg 0\nx/b.jpg 1\n",
            "none of 2 paths in .* first: 'x/a.jpg 0'; a line may be more than a path: 'x/a.jpg'",
        ),
        ("x/a.jpg\n", "none of 1 paths in .* first: 'x/a.jpg'$"),
        ("b.jpg\na\0.jpg\n", r"list.txt:2: 'a\\x00.jpg' contains a NUL character"),
    ],
)
def test_what_is_no_path_is_named(root: Path, content: str, message: str) -> None:
    (root / "list.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        list_images(root / "list.txt", Modality.VISIBLE)
