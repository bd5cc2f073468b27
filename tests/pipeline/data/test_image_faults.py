"""Faults of real files by their kind, as every command counts them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality
from pipeline.data.decoding import inspect_images
from pipeline.data.image_faults import fault_lines
from pipeline.data.image_files import FROM_ANYWHERE, Unreadable
from pipeline.data.images import ImageTable


def kinds_in(root: Path) -> dict[str, int]:
    names = tuple(sorted(path.name for path in root.iterdir()))
    table = ImageTable(root, names, np.ones(len(names), dtype=np.int64), Modality.VISIBLE)
    found = (
        line.split(":")[0].split(" ", 1) for line in fault_lines(inspect_images([table], FROM_ANYWHERE).unreadable)
    )
    return {kind: int(count) for count, kind in found}


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_a_file_that_was_cut_is_truncated_or_damaged(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (kind,) = kinds_in(tmp_path)
    assert kind in (("truncated",) if ending in ("jpg", "png", "bmp", "tif") else ("truncated", "damaged"))


def test_each_kind_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.image_files.MOST_PIXELS", 50_000)
    Image.new("L", (32, 64)).save(tmp_path / "good.png")
    Image.new("L", (1_000, 60)).save(tmp_path / "large.png")
    Image.fromarray(np.full((8, 4), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>sign in</html>")
    (tmp_path / "film.jpg").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "broken.png")  # 120 KB: two parts, each beginning with IDAT
    first, second, rest = (tmp_path / "broken.png").read_bytes().split(b"IDAT")
    (tmp_path / "broken.png").write_bytes(first + b"IDAT" + second + b"ID\0T" + rest)
    assert kinds_in(tmp_path) == {
        "empty": 2,
        "of a kind that needs a plugin": 1,
        "not an image": 2,
        "too large": 1,
        "without a finite pixel": 1,
        "impossible to open": 1,
        "damaged": 1,
    }


def test_a_line_names_the_first_three_and_the_reason_of_one() -> None:
    found = [Unreadable(f"{number}.jpg", "an empty file") for number in range(4)]
    found.append(Unreadable("x.png", "broken PNG file"))
    assert fault_lines(found) == [
        "4 empty: 0.jpg (an empty file), 1.jpg, 2.jpg, ...",
        "1 damaged: x.png (broken PNG file)",
    ]
    assert fault_lines([]) == []
