"""The store of decoded images: bytes, keys, interruption, waiting, and every way in which it can fail."""

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from models.modality import Modality, PerModality
from pipeline.data import decoding, store
from pipeline.data.image_files import AS_STORED, FROM_ANYWHERE, ImageReading
from pipeline.data.images import ImageTable
from pipeline.data.store import damaged_arrays, open_store, store_key, stores_below
from pipeline.errors import ConfigError, DataError

HEIGHT, WIDTH = 12, 6


def write_images(root: Path, num_visible: int = 7, num_infrared: int = 5) -> PerModality[ImageTable]:
    """Coloured JPEGs for visible images, grey ones for infrared ones, each with its own content and size."""
    generator = np.random.default_rng(5)

    def write(modality: Modality, count: int) -> ImageTable:
        (root / modality.value).mkdir(parents=True, exist_ok=True)
        paths = tuple(f"{modality}/{number:04d}.jpg" for number in range(count))
        for number, path in enumerate(paths):
            shape = (20 + number, 10 + number, 3)
            image = Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
            (image if modality is Modality.VISIBLE else image.convert("L")).save(root / path)
        return ImageTable(root=root, paths=paths, cameras=np.ones(count, dtype=np.int64), modality=modality)

    return PerModality(write(Modality.VISIBLE, num_visible), write(Modality.INFRARED, num_infrared))


def decode_slowly(path: Path) -> np.ndarray:
    """What the specification says, step by step."""
    image = Image.open(path)
    image.load()
    return np.array(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def pixels_of(path: Path) -> np.ndarray:
    return decoding.decode_image(path, HEIGHT, WIDTH, AS_STORED).pixels


def open_small(tables: PerModality[ImageTable], cache: Path, workers: int | None = 2) -> store.ImageStore:
    return open_store(tables, height=HEIGHT, width=WIDTH, cache_folder=cache, workers=workers)


def contents(opened: store.ImageStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(opened.folder.iterdir())}


@pytest.fixture
def tables(tmp_path) -> PerModality[ImageTable]:
    return write_images(tmp_path / "data")


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the images that are decoded from now on."""
    names: list[str] = []
    original = decoding.decode_image

    def counting(path, height, width, reading):
        names.append(path.name)
        return original(path, height, width, reading)

    monkeypatch.setattr(decoding, "decode_image", counting)
    return names


class TestContent:
    def test_every_row_equals_a_fresh_decode_bit_for_bit(self, tables, tmp_path):
        opened = open_small(tables, tmp_path / "cache")
        for modality, table in tables.items():
            expected = np.stack([decode_slowly(table.root / path) for path in table.paths])
            assert np.array_equal(opened.arrays[modality], expected)

    def test_arrays_are_read_only_maps_of_files(self, tables, tmp_path):
        opened = open_small(tables, tmp_path / "cache")
        assert isinstance(opened.arrays.visible, np.memmap)
        assert not opened.arrays.visible.flags.writeable
        assert sorted(contents(opened)) == ["index.json", "infrared.npy", "visible.npy"]

    @pytest.mark.parametrize("workers", [1, 4, None])
    def test_the_bytes_do_not_depend_on_the_number_of_workers(self, tables, tmp_path, workers):
        expected = contents(open_small(tables, tmp_path / "two", workers=2))
        assert contents(open_small(tables, tmp_path / "other", workers=workers)) == expected

    def test_one_channel_becomes_three_equal_ones(self, tables, tmp_path):
        infrared = open_small(tables, tmp_path / "cache").arrays.infrared
        assert np.ptp(infrared, axis=3).max() == 0

    def test_an_orientation_tag_rotates_nothing(self, tmp_path):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 10, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees to show
        image.save(tmp_path / "tagged.jpg", exif=exif)
        image.save(tmp_path / "plain.jpg")
        tagged = pixels_of(tmp_path / "tagged.jpg")
        assert np.array_equal(tagged, pixels_of(tmp_path / "plain.jpg"))

    def test_an_image_of_the_right_size_is_kept_as_it_is(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "same.png")
        assert np.array_equal(pixels_of(tmp_path / "same.png"), pixels)

    def test_a_second_opening_decodes_nothing(self, tables, tmp_path, decoded):
        open_small(tables, tmp_path / "cache")
        assert len(decoded) == 12
        open_small(tables, tmp_path / "cache")
        assert len(decoded) == 12

    def test_building_changes_nothing_below_the_data_root(self, tables, tmp_path):
        def snapshot() -> list[tuple[str, int]]:
            root = tables.visible.root
            return sorted((str(path), path.stat().st_mtime_ns) for path in (root, *root.rglob("*")))

        before = snapshot()
        open_small(tables, tmp_path / "cache")
        assert snapshot() == before


class TestKey:
    def key(self, tables: PerModality[ImageTable], height: int = HEIGHT, width: int = WIDTH) -> str:
        return store_key(tables, height=height, width=width)

    def test_size_order_and_bytes_change_it(self, tables):
        key = self.key(tables)
        assert self.key(tables, height=HEIGHT + 1) != key
        assert self.key(tables, width=WIDTH + 1) != key
        reordered = replace(tables.visible, paths=tables.visible.paths[::-1])
        assert self.key(PerModality(reordered, tables.infrared)) != key
        shorter = replace(tables.visible, paths=tables.visible.paths[:-1], cameras=tables.visible.cameras[:-1])
        assert self.key(PerModality(shorter, tables.infrared)) != key
        with (tables.visible.root / tables.visible.paths[3]).open("ab") as file:
            file.write(b"\0")
        assert self.key(tables) != key

    def test_an_image_that_changes_its_modality_changes_it(self, tables):
        visible, infrared = tables
        moved = PerModality(
            replace(visible, paths=visible.paths[:-1], cameras=visible.cameras[:-1]),
            replace(infrared, paths=(visible.paths[-1], *infrared.paths), cameras=np.ones(6, dtype=np.int64)),
        )
        assert self.key(moved) != self.key(tables)

    def test_the_place_and_age_of_the_files_do_not(self, tables, tmp_path):
        moved_root = tmp_path / "elsewhere" / "data"
        shutil.copytree(tables.visible.root, moved_root)
        for path in moved_root.rglob("*.jpg"):
            os.utime(path, (0, 0))
        assert self.key(tables.map(lambda table: replace(table, root=moved_root))) == self.key(tables)

    def test_a_moved_data_set_keeps_its_store(self, tables, tmp_path, decoded):
        open_small(tables, tmp_path / "cache")
        moved = tables.visible.root.rename(tmp_path / "moved")
        open_small(tables.map(lambda table: replace(table, root=moved)), tmp_path / "cache")
        assert len(decoded) == 12

    def test_the_key_of_jpeg_and_bmp_files_is_that_of_earlier_versions(self, tables):
        files = {
            modality.value: [(path, (table.root / path).stat().st_size) for path in table.paths]
            for modality, table in tables.items()
        }
        content = {"format": 1, "height": HEIGHT, "width": WIDTH, "filter": "lanczos", "files": files}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert self.key(tables) == hashlib.sha256(text.encode()).hexdigest()

    def test_another_reading_is_another_store(self, tables):
        readings = (AS_STORED, FROM_ANYWHERE, ImageReading("ignore", (0.0, 1.0)), ImageReading("apply", (0.0, 2.0)))
        assert len({store_key(tables, height=HEIGHT, width=WIDTH, reading=one) for one in readings}) == 4


class TestConversions:
    def test_each_is_counted_in_one_line_and_the_reading_is_recorded(self, tables, tmp_path, caplog):
        deep = np.linspace(29_000, 30_000, 200).astype(np.uint16).reshape(20, 10)
        for number, path in enumerate(tables.infrared.paths[:3]):
            Image.fromarray(deep + number).save(tables.infrared.root / path, format="PNG")
        with caplog.at_level(logging.INFO, "pipeline"):
            opened = open_small(tables, tmp_path / "cache")
        assert caplog.text.count("3 of 12 images have more than 8 bits a channel") == 1
        index = json.loads((opened.folder / "index.json").read_text())
        assert ImageReading.from_dict(index["reading"]) == AS_STORED
        assert opened.arrays.infrared[0].min() < 5 and opened.arrays.infrared[0].max() > 245


class TestInterruption:
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 11), st.integers(1, 5))
    def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(self, tables, tmp_path_factory, stop_after, chunk):
        folder = tmp_path_factory.mktemp("interrupted")
        expected = contents(open_small(tables, folder / "whole"))
        names: list[str] = []
        original = decoding.decode_image

        def decode(path, height, width, reading):
            if len(names) == stop_after:
                raise KeyboardInterrupt
            names.append(path.name)
            return original(path, height, width, reading)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoding, "CHUNK_ROWS", chunk)
            patch.setattr(decoding, "decode_image", decode)
            with pytest.raises(KeyboardInterrupt):
                open_small(tables, folder / "cache", workers=1)
            assert not [path for path in (folder / "cache").iterdir() if path.is_dir() and path.suffix != ".partial"]
            patch.setattr(decoding, "decode_image", original)
            resumed = open_small(tables, folder / "cache", workers=1)
        assert contents(resumed) == expected
        assert not list((folder / "cache").glob("*.partial"))

    def test_complete_chunks_are_not_decoded_again(self, tables, tmp_path, monkeypatch, decoded):
        monkeypatch.setattr(decoding, "CHUNK_ROWS", 3)
        counting = decoding.decode_image

        def stop_at_the_fifth(path, height, width, reading):
            if len(decoded) == 5:
                raise KeyboardInterrupt
            return counting(path, height, width, reading)

        monkeypatch.setattr(decoding, "decode_image", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            open_small(tables, tmp_path / "cache", workers=1)
        monkeypatch.setattr(decoding, "decode_image", counting)
        decoded.clear()
        open_small(tables, tmp_path / "cache", workers=1)
        # Five of seven visible images were decoded: one chunk of three is complete. Left: four visible, five infrared.
        assert sorted(decoded) == sorted(
            ["0003.jpg", "0004.jpg", "0005.jpg", "0006.jpg"] + [f"000{i}.jpg" for i in range(5)]
        )

    def test_a_chunk_that_was_written_but_not_marked_is_decoded_again(self, tables, tmp_path, monkeypatch, decoded):
        monkeypatch.setattr(decoding, "CHUNK_ROWS", 4)
        sync = decoding._sync
        synced: list[str] = []

        def stop_before_the_second_mark(file):
            if len(synced) == 2:  # rows, mark, and now the rows of the second chunk
                raise KeyboardInterrupt
            synced.append(file.name)
            sync(file)

        monkeypatch.setattr(decoding, "_sync", stop_before_the_second_mark)
        with pytest.raises(KeyboardInterrupt):
            open_small(tables, tmp_path / "cache")
        monkeypatch.setattr(decoding, "_sync", sync)
        decoded.clear()
        opened = open_small(tables, tmp_path / "cache")
        assert len(decoded) == 3 + 5
        assert np.array_equal(opened.arrays.visible[5], decode_slowly(tables.visible.root / tables.visible.paths[5]))

    def test_another_process_is_waited_for_and_its_store_is_used(self, tables, tmp_path, decoded, caplog):
        cache = tmp_path / "cache"
        key = store_key(tables, height=HEIGHT, width=WIDTH)
        waiting = threading.Event()
        opened: list[store.ImageStore] = []

        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "waiting" in record.getMessage():
                    waiting.set()

        listener = Listener()
        logging.getLogger("pipeline.data.store").addHandler(listener)
        thread = threading.Thread(target=lambda: opened.append(open_small(tables, cache)))
        cache.mkdir()
        try:
            with caplog.at_level(logging.INFO, "pipeline"), store._locked(cache / f"{key}.lock"):
                thread.start()
                assert waiting.wait(300)
                assert not opened
                assert not decoded
                other = open_small(tables, tmp_path / "other")
                shutil.copytree(other.folder, cache / key)  # what the holder of the lock does
                decoded.clear()
            thread.join(300)
        finally:
            logging.getLogger("pipeline.data.store").removeHandler(listener)
        assert opened[0].folder == cache / key
        assert not decoded


class TestUnreadableImages:
    def test_all_are_found_in_one_pass_and_counted_by_kind(self, tables, tmp_path):
        root = tables.visible.root
        for number in (1, 2, 4, 6):
            path = root / tables.visible.paths[number]
            path.write_bytes(path.read_bytes()[:200])
        for number in (0, 1, 3):
            (root / tables.infrared.paths[number]).write_bytes(b"" if number else b"no image at all")
        with pytest.raises(DataError) as caught:
            open_small(tables, tmp_path / "cache")
        message = caught.value.message
        assert message.startswith("7 of 12 images")
        empty, truncated, no_image = message.partition("cannot be read: ")[2].split("; ")
        assert empty == "2 empty: infrared/0001.jpg (an empty file), infrared/0003.jpg"
        assert truncated.startswith("4 truncated: visible/0001.jpg (") and truncated.endswith(
            "), visible/0002.jpg, visible/0004.jpg, ..."
        )
        assert no_image == "1 not an image: infrared/0000.jpg (no image, but a text)"
        assert "copy these files again" in caught.value.hint and "data.unreadable=skip" in caught.value.hint

    def test_nothing_is_left_and_the_next_attempt_with_good_files_succeeds(self, tables, tmp_path):
        path = tables.visible.root / tables.visible.paths[2]
        good = path.read_bytes()
        path.write_bytes(good[:-300] + b"\0" * 300)
        path.write_bytes(good[: len(good) // 2])
        with pytest.raises(DataError, match="1 of 12 images"):
            open_small(tables, tmp_path / "cache")
        assert not [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]
        path.write_bytes(good)
        assert len(open_small(tables, tmp_path / "cache").arrays.visible) == 7

    def test_an_unreadable_image_is_found_again_after_an_interruption(self, tables, tmp_path, monkeypatch):
        monkeypatch.setattr(decoding, "CHUNK_ROWS", 2)
        bad = tables.visible.root / tables.visible.paths[1]
        bad.write_bytes(b"nothing")
        original = decoding.decode_image

        def stop_late(path, height, width, reading):
            if path.name == "0006.jpg":
                raise KeyboardInterrupt
            return original(path, height, width, reading)

        monkeypatch.setattr(decoding, "decode_image", stop_late)
        with pytest.raises(KeyboardInterrupt):
            open_small(tables, tmp_path / "cache")
        monkeypatch.setattr(decoding, "decode_image", original)
        with pytest.raises(DataError, match=r"1 of 12 images .*visible/0001\.jpg"):
            open_small(tables, tmp_path / "cache")

    @pytest.mark.parametrize("extension", ["jpg", "png", "bmp"])
    def test_a_file_cut_short_anywhere_is_an_error_and_never_a_crash(self, tmp_path, extension):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8))
        whole, cut = tmp_path / f"whole.{extension}", tmp_path / f"cut.{extension}"
        image.save(whole)
        content = whole.read_bytes()
        for length in range(0, len(content) * 3 // 4, 61):
            cut.write_bytes(content[:length])
            with pytest.raises(OSError, match=r"."):
                pixels_of(cut)

    def test_a_damaged_part_of_a_png_is_an_error_of_the_file(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "parts.png")  # 120 KB: two parts, each beginning with IDAT
        first, second, rest = (tmp_path / "parts.png").read_bytes().split(b"IDAT")
        (tmp_path / "parts.png").write_bytes(first + b"IDAT" + second + b"ID\0T" + rest)
        with pytest.raises(OSError, match="damaged image file"):
            pixels_of(tmp_path / "parts.png")

    def test_missing_files_are_counted_before_anything_is_decoded(self, tables, tmp_path, decoded):
        (tables.infrared.root / tables.infrared.paths[4]).unlink()
        with pytest.raises(DataError, match=r"1 of 5 infrared images .* are missing: infrared/0004\.jpg"):
            open_small(tables, tmp_path / "cache")
        assert not decoded

    def test_a_modality_without_images_is_refused(self, tables, tmp_path):
        empty = replace(tables.infrared, paths=(), cameras=np.empty(0, dtype=np.int64))
        with pytest.raises(DataError, match="0 of 0 infrared images"):
            open_small(PerModality(tables.visible, empty), tmp_path / "cache")


class TestSkippedImages:
    def open_skipping(self, tables: PerModality[ImageTable], cache: Path) -> store.ImageStore:
        return open_store(tables, height=HEIGHT, width=WIDTH, cache_folder=cache, workers=2, unreadable="skip")

    def test_they_are_black_and_named_and_the_others_are_as_ever(self, tables, tmp_path):
        expected = open_small(tables, tmp_path / "whole").arrays
        (tables.visible.root / tables.visible.paths[2]).write_bytes(b"")
        opened = self.open_skipping(tables, tmp_path / "cache")
        assert [(one.path, one.reason) for one in opened.unreadable] == [("visible/0002.jpg", "an empty file")]
        assert not opened.arrays.visible[2].any()
        others = [row for row in range(7) if row != 2]
        assert np.array_equal(opened.arrays.visible[others], expected.visible[others])
        assert np.array_equal(opened.arrays.infrared, expected.infrared)
        assert damaged_arrays(opened) == ()

    def test_a_second_opening_decodes_only_these_again_and_one_that_refuses_names_them(self, tables, tmp_path, decoded):
        (tables.visible.root / tables.visible.paths[2]).write_bytes(b"nothing")
        first = self.open_skipping(tables, tmp_path / "cache")
        decoded.clear()
        assert self.open_skipping(tables, tmp_path / "cache").unreadable == first.unreadable
        assert set(decoded) == {"0002.jpg"}
        with pytest.raises(DataError, match=r"1 of 12 images .* 1 not an image: visible/0002\.jpg"):
            open_small(tables, tmp_path / "cache")

    def test_a_file_that_is_mended_without_a_change_of_its_size_is_decoded(self, tables, tmp_path):
        path = tables.visible.root / tables.visible.paths[2]
        good = path.read_bytes()
        path.write_bytes(b"x" * len(good))
        assert self.open_skipping(tables, tmp_path / "cache").unreadable
        path.write_bytes(good)
        opened = self.open_skipping(tables, tmp_path / "cache")
        assert opened.unreadable == () and np.array_equal(opened.arrays.visible[2], decode_slowly(path))
        assert sorted(one.name for one in (tmp_path / "cache").iterdir()) == [opened.key, f"{opened.key}.lock"]

    def test_they_are_found_again_after_an_interruption(self, tables, tmp_path, monkeypatch):
        monkeypatch.setattr(decoding, "CHUNK_ROWS", 2)
        (tables.visible.root / tables.visible.paths[1]).write_bytes(b"nothing")
        original = decoding.decode_image

        def stop_late(path, height, width, reading):
            if path.name == "0006.jpg":
                raise KeyboardInterrupt
            return original(path, height, width, reading)

        monkeypatch.setattr(decoding, "decode_image", stop_late)
        with pytest.raises(KeyboardInterrupt):
            self.open_skipping(tables, tmp_path / "cache")
        monkeypatch.setattr(decoding, "decode_image", original)
        opened = self.open_skipping(tables, tmp_path / "cache")
        assert [one.path for one in opened.unreadable] == ["visible/0001.jpg"]
        assert np.array_equal(opened.arrays.visible[0], decode_slowly(tables.visible.root / tables.visible.paths[0]))


class TestRoom:
    def test_a_disk_too_small_is_an_error_with_both_figures(self, tables, tmp_path, monkeypatch, decoded):
        # 12 images of 288 x 144 x 3 bytes: 1.49 MB. Asked for at 4096 x 2048 they are 12 x 25.17 MB = 0.30 GB.
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
        with pytest.raises(DataError, match=r"need 0\.30 GB, .* has 0\.10 GB free"):
            open_store(tables, height=4096, width=2048, cache_folder=tmp_path / "cache", workers=1)
        assert not decoded

    def test_what_is_decoded_already_needs_no_room(self, tables, tmp_path, monkeypatch):
        monkeypatch.setattr(decoding, "CHUNK_ROWS", 1)
        original = decoding.decode_image

        def stop_at_the_last(path, height, width, reading):
            if path.name == "0004.jpg" and path.parent.name == "infrared":
                raise KeyboardInterrupt
            return original(path, height, width, reading)

        monkeypatch.setattr(decoding, "decode_image", stop_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            open_small(tables, tmp_path / "cache", workers=1)
        monkeypatch.setattr(decoding, "decode_image", original)
        one_image = HEIGHT * WIDTH * 3
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=one_image))
        assert len(open_small(tables, tmp_path / "cache", workers=1).arrays.infrared) == 5

    def test_a_disk_that_fills_up_meanwhile_is_an_error_with_a_hint(self, tables, tmp_path, monkeypatch):
        def full(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(decoding, "_sync", full)
        with pytest.raises(DataError, match=r"cannot be written to .*No space left") as caught:
            open_small(tables, tmp_path / "cache")
        assert "make room" in caught.value.hint

    def test_a_cache_below_the_data_root_is_refused(self, tables):
        root = tables.visible.root
        with pytest.raises(ConfigError, match="below the data root"):
            open_small(tables, root / "runs" / "images")
        assert not (root / "runs").exists()

    def test_where_the_root_is_only_where_paths_start_the_folders_of_images_are_kept_free(self, tables):
        listed, root = tables.map(lambda table: replace(table, fills_root=False)), tables.visible.root
        with pytest.raises(ConfigError, match="below the data root"):
            open_small(listed, root / "infrared" / "runs")
        assert len(open_small(listed, root / "runs" / "images").arrays.visible) == 7


class TestDamage:
    def test_an_array_cut_short_is_refused_with_what_to_do(self, tables, tmp_path):
        path = open_small(tables, tmp_path / "cache").folder / "visible.npy"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(DataError, match=r"visible\.npy is truncated: it claims") as caught:
            open_small(tables, tmp_path / "cache")
        assert "remove that folder" in caught.value.hint

    def test_an_array_of_another_shape_is_refused(self, tables, tmp_path):
        np.save(open_small(tables, tmp_path / "cache").folder / "infrared.npy", np.zeros((5, 6, 12, 3), dtype=np.uint8))
        with pytest.raises(DataError, match=r"holds uint8 \(5, 6, 12, 3\), expected uint8 \(5, 12, 6, 3\)"):
            open_small(tables, tmp_path / "cache")

    def test_a_missing_index_is_refused(self, tables, tmp_path):
        (open_small(tables, tmp_path / "cache").folder / "index.json").unlink()
        with pytest.raises(DataError, match=r"index\.json cannot be read"):
            open_small(tables, tmp_path / "cache")

    @pytest.mark.parametrize("content", ["[]", "{}", '{"sha256": 1}', "<html>", "[" * 10**5])
    def test_an_index_of_other_content_is_refused(self, tables, tmp_path, content):
        (open_small(tables, tmp_path / "cache").folder / "index.json").write_text(content)
        with pytest.raises(DataError, match=r"index\.json is damaged") as caught:
            open_small(tables, tmp_path / "cache")
        assert "remove that folder" in caught.value.hint

    def test_other_folders_beside_the_stores_are_passed_over(self, tables, tmp_path):
        folder = open_small(tables, tmp_path / "cache").folder
        (tmp_path / "cache" / "photographs").mkdir()
        (tmp_path / "cache" / "photographs" / "index.json").write_text("of another program")
        ((found, index),) = stores_below(tmp_path / "cache")
        assert (found, index.height, index.width) == (folder, 12, 6)

    def test_a_changed_byte_is_found_by_its_digest(self, tables, tmp_path):
        opened = open_small(tables, tmp_path / "cache")
        assert damaged_arrays(opened) == ()
        path = opened.folder / "infrared.npy"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert damaged_arrays(open_small(tables, tmp_path / "cache")) == (path,)
