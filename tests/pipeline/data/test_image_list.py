"""Which images a path stands for."""

import os
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.errors import ConfigError, DataError

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_a_folder_is_walked_to_any_depth_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/1.png", "a.tiff", "notes.txt", ".hidden.jpg", ".git/x.jpg", "c/d/e.webp")
    found = list_images(tmp_path, INFRARED)
    assert found.paths == ("a.tiff", "b/1.png", "b/2.JPG", "c/d/e.webp")
    assert found.infrared.all() and found.known is None and found.root == tmp_path


def test_every_kind_that_can_be_read_is_listed_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = ("jpg", "jpe", "JFIF", "apng", "tif", "jp2", "avif", "mpo")
    touch(tmp_path, *(f"{number}.{kind}" for number, kind in enumerate(kinds)))
    touch(tmp_path, "a.heic", "sub/b.heic", "c.json", ".hidden.heic", "Thumbs.db")
    with caplog.at_level("INFO"):
        assert len(list_images(tmp_path, VISIBLE)) == len(kinds)
    assert "3 files skipped by extension: a.heic, c.json, sub/b.heic; HEIC needs" in caplog.text


def test_links_are_followed_to_files_of_the_folder_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "outside/secret.jpg", "in/a.jpg", "in/sub/b.jpg")
    (tmp_path / "in/leads-out.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (tmp_path / "in/again.jpg").symlink_to(tmp_path / "in/a.jpg")
    (tmp_path / "in/folder").symlink_to(tmp_path / "outside", target_is_directory=True)
    with caplog.at_level("WARNING"):
        found = list_images(tmp_path / "in", VISIBLE)
    assert found.paths == ("a.jpg", "again.jpg", "sub/b.jpg")
    assert "2 links" in caplog.text and "leads-out.jpg" in caplog.text


def test_names_may_hold_any_sign(tmp_path: Path) -> None:
    names = [b"\xff\xfe.jpg", "ä [b].jpg".encode(), b"line\nend.jpg", b" .jpg"]
    for name in names:
        (Path(os.fsencode(tmp_path).decode()) / os.fsdecode(name)).write_bytes(b"")
    assert sorted(map(os.fsencode, list_images(tmp_path, VISIBLE).paths)) == sorted(names)


def test_a_list_names_paths_from_its_own_folder_or_absolute_ones(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "elsewhere.jpg")
    elsewhere = tmp_path / "elsewhere.jpg"
    (tmp_path / "list.txt").write_text(f"# mine\n\na/1.jpg\n{elsewhere}\na/1.jpg\n")
    found = list_images(tmp_path / "list.txt", VISIBLE)
    assert found.paths == ("a/1.jpg", str(elsewhere))
    assert found.root / found.paths[0] == tmp_path / "a/1.jpg" and found.root / found.paths[1] == elsewhere


def test_a_single_image(tmp_path: Path) -> None:
    touch(tmp_path, "one.img")
    found = list_images(tmp_path / "one.img", VISIBLE)
    assert found.root / found.paths[0] == tmp_path / "one.img"


MANIFEST = """path,modality,camera,person,split
v/1.jpg,visible,hall,anna,gallery
v/2.jpg,visible,hall,bert,gallery
i/1.jpg,infrared,yard,bert,query
i/2.jpg,infrared,yard,,train
"""


def test_a_manifest_says_what_took_images_and_whom_they_show(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(MANIFEST)
    found = list_images(tmp_path / "m.csv", None)
    assert found.paths == ("v/1.jpg", "v/2.jpg", "i/1.jpg", "i/2.jpg")
    assert found.infrared.tolist() == [False, False, True, True]
    assert found.known is not None and found.known.people == ("anna", "bert", "bert", "")


def test_parts_of_a_manifest_number_the_same_people_alike(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(MANIFEST)
    query, gallery = (list_images(tmp_path / "m.csv", None, [split]) for split in ("query", "gallery"))
    assert query.known is not None and gallery.known is not None
    assert query.known.person_numbers == gallery.known.person_numbers == {"anna": 1, "bert": 2}
    assert query.paths == ("i/1.jpg",) and gallery.paths == ("v/1.jpg", "v/2.jpg")


def test_the_modality_chooses_rows_of_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(MANIFEST)
    found = list_images(tmp_path / "m.csv", INFRARED)
    assert found.paths == ("i/1.jpg", "i/2.jpg")
    some = found.only(np.array([1]))
    assert some.paths == ("i/2.jpg",) and some.known is not None and some.known.cameras == ("yard",)


@pytest.mark.parametrize(
    ("name", "content", "modality", "splits", "error", "words"),
    [
        ("nothing", None, VISIBLE, (), DataError, "there is no file or folder"),
        ("m.csv", MANIFEST, None, ("tests",), ConfigError, "no split 'tests'"),
        ("m.csv", MANIFEST, INFRARED, ("gallery",), DataError, "contains no image"),
        ("m.csv", MANIFEST.replace("hall,anna", ",anna"), None, (), DataError, "in line 2"),
        ("l.txt", "a.jpg\n", None, (), ConfigError, "may be visible or infrared"),
        ("l.txt", "a.jpg\n", VISIBLE, ("query",), ConfigError, "is not a manifest"),
        ("l.txt", "# none\n", VISIBLE, (), DataError, "contains no image"),
        ("l.txt", b"\xff\xff", VISIBLE, (), DataError, "not UTF-8"),
    ],
    ids=["missing", "split", "nothing-left", "mistake", "no-modality", "list-split", "empty-list", "encoding"],
)
def test_what_cannot_be_listed_is_refused(
    tmp_path: Path,
    name: str,
    content: str | bytes | None,
    modality: Modality | None,
    splits: tuple[str, ...],
    error: type[Exception],
    words: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=words):
        list_images(tmp_path / name, modality, splits)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no image"):
        list_images(tmp_path, VISIBLE)
