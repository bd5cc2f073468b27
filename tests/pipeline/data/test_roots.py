"""Data roots that are almost right: the reason is named, and the folder or option that helps."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.dataset import check_dataset, read_dataset
from pipeline.errors import DataError

CAMERAS = [f"cam{camera}" for camera in range(1, 7)]


def sysu(root: Path) -> Path:
    """Folders of SYSU-MM01's layout, without images."""
    for name in (*CAMERAS, "exp"):
        (root / name).mkdir(parents=True)
    for split in ("train", "test"):
        (root / "exp" / f"{split}_id.txt").write_text("1")
    return root


def refusal(root: Path, name: str = "sysu") -> DataError:
    with pytest.raises(DataError) as caught:
        check_dataset(name, root)
    with pytest.raises(DataError) as again:
        read_dataset(name, root)
    assert again.value.message == caught.value.message
    return caught.value


@pytest.mark.parametrize("below", ["SYSU-MM01", "data/SYSU-MM01"])
def test_a_root_one_or_two_levels_too_high(tmp_path: Path, below: str) -> None:
    inner = sysu(tmp_path / "outer" / below)
    error = refusal(tmp_path / "outer")
    assert error.message == f"{tmp_path}/outer is not laid out like SYSU-MM01, but its subfolder {inner} is"
    assert error.hint == "name that folder"


@pytest.mark.parametrize("below", ["cam1", "exp", "cam1/0001"])
def test_a_root_too_low(tmp_path: Path, below: str) -> None:
    root = sysu(tmp_path / "people")
    (root / below).mkdir(exist_ok=True)
    (root / below / "notes").touch()
    assert refusal(root / below).message.endswith(f"but its parent folder {root} is")


Change = Callable[[Path], object]
CHANGES: list[tuple[Change, str, str]] = [
    (lambda root: (root / "cam1").rename(root / "Cam1"), "no cam1/; there is 'Cam1'", "rename it"),
    (lambda root: (root / "cam1").rename(root / "cam1 "), "no cam1/; there is 'cam1 '", "rename it"),
    (lambda root: [shutil.rmtree(root / "cam6"), (root / "cam6.zip").touch()], "no cam6/", "unpack cam6.zip"),
    (lambda root: shutil.rmtree(root / "cam6"), "no cam6/", "copy what is missing"),
    (
        lambda root: [shutil.rmtree(root / "cam6"), (root / "cam6").symlink_to("gone")],
        "people/cam6 is a link to gone, which is not there",
        "mend the link",
    ),
    (lambda root: [shutil.rmtree(root / "cam6"), (root / "cam6").touch()], "cam6 is a file", "unpack"),
    (lambda root: (root / "exp" / "test_id.txt").unlink(), "no exp/test_id.txt (or .mat)", "copy what is missing"),
    (lambda root: [shutil.rmtree(root), root.mkdir()], "is empty", "unpack the data set into it, or mount the disk"),
    (lambda root: [shutil.rmtree(root), root.touch()], "is a file, not a folder", "name the folder"),
    (lambda root: shutil.rmtree(root), "there is no folder", "docs/data-sets.md"),
    (
        lambda root: root.rename(root.with_name("PEOPLE")),
        "/PEOPLE' is there, whose name differs in case",
        "--data",
    ),
    (
        lambda root: [shutil.rmtree(root), root.symlink_to("gone")],
        "is a link to gone, which is not there",
        "--data",
    ),
]


@pytest.mark.parametrize(("change", "message", "hint"), CHANGES)
def test_the_reason_is_named(tmp_path: Path, change: Change, message: str, hint: str) -> None:
    root = sysu(tmp_path / "people")
    change(root)
    error = refusal(root)
    assert message in error.message
    assert hint in error.hint
    assert "sign the agreement" not in error.hint


def test_an_archive_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "SYSU-MM01.tar.gz").touch()
    assert refusal(tmp_path / "SYSU-MM01.tar.gz").message.endswith("is an archive, not a folder")


def test_a_manifest_in_place_of_a_folder_names_the_command_that_takes_it(tmp_path: Path) -> None:
    (tmp_path / "site.csv").touch()
    error = refusal(tmp_path / "site.csv")
    assert error.message.endswith("is a file, not a folder")
    assert "vireid train PRESET --data FILE" in error.hint


def test_a_relative_root_is_named_with_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(Path("people")).message == f"there is no folder people in the working folder {tmp_path}"


def test_another_unicode_form_of_a_root_is_named(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "Ren\u00e9")).mkdir()
    assert r"Rene\u0301' is there" in refusal(tmp_path / "Ren\u00e9").message


def test_the_data_set_of_another_name_is_named(tmp_path: Path) -> None:
    root = sysu(tmp_path / "people")
    error = refusal(root, "llcm")
    assert error.message == f"{root} is laid out like SYSU-MM01, not like LLCM"
    assert "data.name=sysu" in error.hint
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.csv").touch()
    assert "laid out like a manifest" in refusal(tmp_path / "site").message


def test_an_unrelated_folder_is_answered_with_how_to_obtain_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "sign the agreement" in refusal(tmp_path).hint


def test_a_folder_of_tables_names_them(tmp_path: Path) -> None:
    (tmp_path / "site.csv").touch()
    assert refusal(tmp_path, "manifest").message.endswith("and holds site.csv")


def test_a_name_that_no_disk_holds_is_not_there(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / ("x" * 300)).message
