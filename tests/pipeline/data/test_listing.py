"""What lies in folders, in one order, without end."""

from pathlib import Path, PurePosixPath

from pipeline.data.listing import walk_images


def test_images_are_found_at_any_depth_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.PNG", "a/deep/er/x.bmp", "c.jpeg", "notes.txt", ".hidden.jpg", "Thumbs.db"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [str(path) for path in walk_images(tmp_path, PurePosixPath())]
    assert found == ["a/deep/er/x.bmp", "b/10.PNG", "b/2.jpg", "c.jpeg"]


def test_a_link_to_a_folder_above_is_not_walked_again(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "same").symlink_to(tmp_path / "a")
    assert [str(path) for path in walk_images(tmp_path, PurePosixPath())] == ["a/1.jpg"]


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert [str(path) for path in walk_images(tmp_path / "root", PurePosixPath())] == ["link/1.jpg"]
