"""Which extensions are those of images, with and without a plugin of Pillow."""

import sys
from types import SimpleNamespace

import pytest
from PIL import Image, features

from pipeline.data import image_names
from pipeline.data.image_names import is_readable_name, needs_plugin, skipped_by_extension


@pytest.mark.parametrize("name", ["a.jpg", "a.JFIF", "a.jpe", "a.tif", "a.TIFF", "x.y.pgm", " .jpg", "a\nb.png"])
def test_images_are_recognised_by_their_extension(name: str) -> None:
    assert is_readable_name(name)


@pytest.mark.parametrize("name", ["jpg", ".jpg", "a.jpg.txt", "a", "a.", "a.raw", "a.pdf", "a.mp4", "a.eps"])
def test_others_are_not(name: str) -> None:
    assert not is_readable_name(name)


def test_kinds_that_need_a_codec_are_readable_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    image_names.readable_extensions.cache_clear()
    monkeypatch.setattr(features, "check", lambda codec: codec == "webp")
    try:
        assert is_readable_name("a.webp") and not is_readable_name("a.jp2")
    finally:
        image_names.readable_extensions.cache_clear()


def test_a_plugin_makes_its_kinds_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs_plugin("a.HEIC") and not is_readable_name("a.HEIC")
    extensions = dict(Image.EXTENSION)
    plugin = SimpleNamespace(register_heif_opener=lambda: extensions.update({".heic": "HEIF"}))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "EXTENSION", extensions)
    for cached in (image_names.register_plugins, image_names.readable_extensions):
        cached.cache_clear()
    try:
        assert is_readable_name("a.HEIC") and not needs_plugin("a.HEIC")
    finally:
        for cached in (image_names.register_plugins, image_names.readable_extensions):
            cached.cache_clear()


def test_the_first_of_each_extension_is_named_first_and_system_files_are_not() -> None:
    names = ["Thumbs.db", "x/desktop.ini", "7.heic", *(f"{number}.json" for number in range(9)), "b.raw"]
    expected = "11 files skipped by extension: 0.json, 7.heic, b.raw, 1.json, 2.json, ...; HEIC needs"
    assert skipped_by_extension(names).startswith(expected)
    assert skipped_by_extension(["a.jxl", "b.HEIF"]).endswith(
        ": a.jxl, b.HEIF; HEIC needs the package pillow-heif; JPEG XL needs the package pillow-jxl-plugin"
    )
    assert skipped_by_extension(["Thumbs.db"]) == skipped_by_extension([]) == ""
