"""Names that look alike stand for the only existing one."""

import unicodedata
from pathlib import Path

import pytest

from pipeline.runtime.names import FileNames, Names, similar_path, spelling_notes

COMPOSED = "Jos\u00e9.jpg"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(
    ("name", "there", "rule"),
    [
        (COMPOSED, DECOMPOSED, "in another Unicode form"),
        (DECOMPOSED, COMPOSED, "in another Unicode form"),
        ("a.jpg ", "a.jpg", "with other spaces or invisible characters"),
        ("a\u00a0b.jpg", "a b.jpg", "with other spaces or invisible characters"),
        ("\ufeffa\u200b.jpg", "a.jpg", "with other spaces or invisible characters"),
        ("img.JPG", "IMG.jpg", "in upper or lower case"),
        ("cam1 /IMG.jpg", "Cam1/img.jpg", "in upper or lower case"),
    ],
)
def test_a_name_is_found_by_another_spelling(tmp_path: Path, name: str, there: str, rule: str) -> None:
    assert Names([there, "b.jpg"]).find(name) == there
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    assert FileNames(tmp_path).find(name) == there
    (note,) = spelling_notes([(name, there)] * 20, "paths")
    assert note == f"20 paths are found {rule}, first {name!a} as {there!a}"


def test_the_name_itself_and_then_the_closer_spelling_come_first() -> None:
    names = Names(["a.jpg", "A.jpg", "A.JPG"])
    assert names.find("a.jpg") == "a.jpg"
    assert names.find("A.jpg\u200b") == "A.jpg"


def test_several_names_that_look_alike_are_no_answer(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg"):
        (tmp_path / name).touch()
    assert Names(["a.jpg", "A.jpg"]).find("a.JPG") is None
    assert FileNames(tmp_path).find("a.JPG") is None
    assert FileNames(tmp_path).alike("a.JPG") == ["A.jpg", "a.jpg"]


def test_a_different_name_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert FileNames(tmp_path).find("b.jpg") is None
    assert similar_path(tmp_path / "b.jpg") is None
    assert similar_path(tmp_path / "A.jpg") == tmp_path / "a.jpg"
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert similar_path(tmp_path / "Gone") is None
