"""Every image of a data set is decoded once; those that cannot be are named."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality
from pipeline.data import decoding
from pipeline.data.decoding import inspect_images
from pipeline.data.image_files import AS_STORED, Adjustment, ImageReading, Unreadable
from pipeline.data.images import ImageTable


def write_image(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (12, 24), 90 if mode != "RGB" else (90, 40, 10)).save(path)


def unreadable_images(tables: Iterable[ImageTable], workers: int | None = None) -> tuple[Unreadable, ...]:
    return inspect_images(tables, AS_STORED, workers=workers).unreadable


def table(root: Path, *paths: str, modality: Modality = Modality.VISIBLE) -> ImageTable:
    return ImageTable(root, paths, np.ones(len(paths), dtype=np.int64), modality)


def test_readable_images_are_not_named(tmp_path):
    for name, mode in (("a.jpg", "RGB"), ("b.png", "L"), ("c.bmp", "L"), ("d.png", "RGBA")):
        write_image(tmp_path / name, mode)
    assert unreadable_images([table(tmp_path, "a.jpg", "b.png", "c.bmp", "d.png")]) == ()


def test_there_may_be_no_tables_and_empty_tables(tmp_path):
    assert unreadable_images([]) == unreadable_images([table(tmp_path)]) == ()


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_every_unreadable_image_is_named_in_the_order_of_the_tables(tmp_path, workers):
    for name in ("good.png", "cut.png"):
        write_image(tmp_path / "x" / name)
    cut = tmp_path / "x" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (tmp_path / "x" / "empty.jpg").touch()
    (tmp_path / "x" / "text.bmp").write_text("no image")
    tables = [
        table(tmp_path, "x/text.bmp", "x/good.png", "x/empty.jpg"),
        table(tmp_path, "x/gone.jpg", "x/cut.png", modality=Modality.INFRARED),
    ]
    found = unreadable_images(iter(tables), workers=workers)
    assert [problem.path for problem in found] == [
        "x/text.bmp",
        "x/empty.jpg",
        "x/gone.jpg",
        "x/cut.png",
    ]
    assert found[:3] == (
        Unreadable("x/text.bmp", "no image, but a text"),
        Unreadable("x/empty.jpg", "an empty file"),
        Unreadable("x/gone.jpg", "No such file or directory"),
    )
    assert str(tmp_path) not in found[3].reason


def test_an_image_in_several_tables_is_decoded_and_named_once(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    decoded: list[str] = []
    decode = decoding.decode_image

    def counting(path: Path, height: int, width: int, reading: ImageReading):
        decoded.append(path.name)
        return decode(path, height, width, reading)

    monkeypatch.setattr(decoding, "decode_image", counting)
    found = unreadable_images([table(tmp_path, "a.png", "b.png"), table(tmp_path, "b.png", "a.png")])
    assert [problem.path for problem in found] == ["b.png"]
    assert sorted(decoded) == ["a.png", "b.png"]


def test_one_path_below_two_roots_is_two_images(tmp_path):
    write_image(tmp_path / "one" / "a.png")
    (tmp_path / "two").mkdir()
    found = unreadable_images([table(tmp_path / "one", "a.png"), table(tmp_path / "two", "a.png")])
    assert found == (Unreadable("a.png", "No such file or directory"),)


def test_conversions_are_counted(tmp_path):
    for name, mode in (("a.png", "I;16"), ("b.png", "I;16"), ("c.png", "L"), ("d.gif", "P")):
        write_image(tmp_path / name, mode)
    found = inspect_images([table(tmp_path, "a.png", "b.png", "c.png", "d.gif")], AS_STORED)
    assert found.total == 4 and found.adjustments == {Adjustment.SCALED: 2}


def test_nothing_is_written(tmp_path):
    write_image(tmp_path / "a.png")
    before = [(path.name, path.stat().st_mtime_ns) for path in (tmp_path, *tmp_path.iterdir())]
    unreadable_images([table(tmp_path, "a.png")])
    assert [(path.name, path.stat().st_mtime_ns) for path in (tmp_path, *tmp_path.iterdir())] == before
