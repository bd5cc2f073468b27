"""One process writes a data set at a time, and what a killed one has left is removed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.synthetic import writer
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.errors import DataError


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Callable[[Path], None]], None]:
    """Generate a data set, do something while it is being drawn, and end with an interrupt."""

    def run(out: Path, meanwhile: Callable[[Path], None]) -> None:
        def draw(folder: Path, *_: object) -> list[dict[str, object]]:
            monkeypatch.undo()
            meanwhile(folder)
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "_draw_all", draw)
        with pytest.raises(KeyboardInterrupt):
            small(out)

    return run


def small(out: Path) -> None:
    generate_dataset(out, size="smoke", height=16, width=8, workers=1)


def test_a_second_process_on_the_same_folder_is_refused_at_once(
    tmp_path: Path, interrupted: Callable[[Path, Callable[[Path], None]], None]
) -> None:
    def again(folder: Path) -> None:
        with pytest.raises(DataError, match="another process generates"):
            small(tmp_path / "d")
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]
        # Another folder is not concerned.
        small(tmp_path / "e")

    interrupted(tmp_path / "d", again)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_left_over_folders_of_killed_processes_are_removed_by_their_name_only(tmp_path: Path) -> None:
    left = [".d-ab12_xyz.tmp", ".d-abcdefgh.tmp"]
    kept = [".d-short.tmp", ".d-x-abcdefgh.tmp", ".dd-abcdefgh.tmp", "d-abcdefgh.tmp", ".d-abcdefgh"]
    for name in (*left, *kept):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / ".d-notafold.tmp").write_text("a file")
    (tmp_path / ".d-linklink.tmp").symlink_to(tmp_path / ".d-short.tmp")
    small(tmp_path / "d")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "d", ".d-notafold.tmp", ".d-linklink.tmp"}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        small(tmp_path / "file" / "d")


def test_the_folder_has_the_permissions_that_the_user_gives_to_new_ones(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        small(tmp_path / "d")
    finally:
        os.umask(before)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
