"""Tables of images, shuffling for training, and copying pixels out of a store."""

import dataclasses
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.data.images import ImageTable, TestImages, TrainingImages, file_list_digest, gather_pixels
from pipeline.data.truth import Dataset, PersonIds, SplitTables


def a_table(num_images: int, root: Path = Path("/data")) -> ImageTable:
    return ImageTable(
        root=root,
        paths=tuple(f"cam1/{number:04d}/0001.jpg" for number in range(num_images)),
        cameras=np.arange(num_images, dtype=np.int64) % 3,
        modality=Modality.VISIBLE,
    )


def numbered_pixels(num_images: int) -> np.ndarray:
    """Image i is 2 x 3 pixels of value i."""
    return np.broadcast_to(np.arange(num_images, dtype=np.uint8)[:, None, None, None], (num_images, 2, 3, 3)).copy()


def test_pixels_come_in_the_order_asked_for_with_repetitions():
    images = TrainingImages(
        pixels=numbered_pixels(5),
        rows=np.array([3, 0, 4, 1]),
        cameras=np.zeros(4, dtype=np.int64),
        modality=Modality.INFRARED,
    )
    # Positions 2, 0, 2, 3 are rows 4, 3, 4, 1.
    pixels = gather_pixels(images, np.array([2, 0, 2, 3]))
    assert pixels[:, 0, 0, 0].tolist() == [4, 3, 4, 1]
    assert pixels.flags.owndata
    assert pixels.flags.writeable


def test_pixels_are_written_into_the_array_that_is_given():
    images = TestImages.in_order(a_table(4), numbered_pixels(4), np.arange(4))
    target = np.zeros((2, 2, 3, 3), dtype=np.uint8)
    assert gather_pixels(images, np.array([3, 1]), out=target) is target
    assert target[:, 1, 2, 2].tolist() == [3, 1]


def test_a_store_is_read_forwards_whatever_the_order_asked_for():
    class Recording(np.ndarray):
        def __getitem__(self, key):
            read.extend(key.tolist())
            return np.asarray(super().__getitem__(key))

    read: list[int] = []
    images = TestImages.in_order(a_table(6), numbered_pixels(6).view(Recording), np.arange(6))
    gather_pixels(images, np.array([5, 0, 3, 1]))
    assert read == [0, 1, 3, 5]


def test_a_position_beyond_the_last_image_is_an_error():
    with pytest.raises(IndexError):
        gather_pixels(TestImages.in_order(a_table(2), numbered_pixels(2), np.arange(2)), np.array([2]))


def test_reading_ten_thousand_random_rows_takes_little_memory(tmp_path):
    path = tmp_path / "rows.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(10_000, 72, 36, 3))  # a file of holes
    pixels = np.load(path, mmap_mode="r")
    images = TrainingImages.shuffled(a_table(10_000), pixels, np.arange(10_000), np.random.default_rng(0))
    tracemalloc.start()
    for start in range(0, 10_000, 64):
        gather_pixels(images, np.arange(start, min(start + 64, 10_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A batch is 64 x 7,776 bytes = 0.5 MB; the array would be 78 MB. At 288 x 144 it is 8 MB against 1.2 GB.
    assert peak < 2e6


def test_shuffling_keeps_every_image_with_its_camera_and_pixels():
    table, pixels = a_table(50), numbered_pixels(50)
    images = TrainingImages.shuffled(table, pixels, np.arange(50), np.random.default_rng(3))
    assert sorted(images.rows.tolist()) == list(range(50))
    assert np.array_equal(images.cameras, images.rows % 3)
    assert np.array_equal(gather_pixels(images, np.arange(50))[:, 0, 0, 0], images.rows)
    assert images.pixels is pixels
    assert len(images) == 50


def test_shuffling_leaves_the_order_of_the_folders_and_repeats_with_the_seed():
    table, pixels = a_table(50), numbered_pixels(50)
    first = TrainingImages.shuffled(table, pixels, np.arange(50), np.random.default_rng(3))
    again = TrainingImages.shuffled(table, pixels, np.arange(50), np.random.default_rng(3))
    other = TrainingImages.shuffled(table, pixels, np.arange(50), np.random.default_rng(4))
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)
    assert np.mean(first.rows == np.arange(50)) < 0.2


def test_training_images_hold_neither_people_nor_paths():
    names = {field.name for field in dataclasses.fields(TrainingImages)}
    assert names == {"pixels", "rows", "cameras", "modality"}


def test_test_images_keep_the_order_of_the_table():
    images = TestImages.in_order(a_table(4), numbered_pixels(4), np.arange(4))
    assert images.rows.tolist() == [0, 1, 2, 3]
    assert images.cameras.tolist() == [0, 1, 2, 0]


def test_a_split_finds_its_images_among_those_of_the_whole_data_set():
    everything = a_table(6)
    chosen = np.array([4, 1, 3])
    table = dataclasses.replace(
        everything, paths=tuple(everything.paths[row] for row in chosen), cameras=everything.cameras[chosen]
    )
    tables = PerModality(table, dataclasses.replace(table, modality=Modality.INFRARED))
    dataset = Dataset(
        name="some",
        kind="drawn",
        root=everything.root,
        images=PerModality(everything, dataclasses.replace(everything, modality=Modality.INFRARED)),
        training=SplitTables(tables, tables.map(lambda _: PersonIds(np.array([14, 11, 13])))),
        validation=None,
        test=None,
        partial=False,
    )
    assert dataset.stored_rows(table).tolist() == [4, 1, 3]
    images = TrainingImages.shuffled(table, numbered_pixels(6), dataset.stored_rows(table), np.random.default_rng(2))
    # Pixels of image i are i, its camera is i modulo 3 and its person 10 + i, in whatever order they come.
    assert sorted(gather_pixels(images, np.arange(3))[:, 0, 0, 0].tolist()) == [1, 3, 4]
    assert np.array_equal(images.cameras, images.rows % 3)
    people = dataset.training_people(PerModality(images.rows, images.rows[::-1].copy()))
    assert np.array_equal(people.visible.ids, 10 + images.rows)
    assert np.array_equal(people.infrared.ids, 10 + images.rows[::-1])
    assert list(dataset.fingerprint) == ["training"]


def test_pixels_of_another_table_are_our_own_mistake():
    with pytest.raises(AssertionError, match="another table"):
        TrainingImages.shuffled(a_table(4), numbered_pixels(5), np.arange(5), np.random.default_rng(0))
    with pytest.raises(AssertionError, match="another table"):
        TestImages.in_order(a_table(4), numbered_pixels(5), np.arange(3))


def test_the_file_list_digest_is_that_of_sorted_lines():
    first = dataclasses.replace(a_table(0), paths=("b", "a"), cameras=np.zeros(2, dtype=np.int64))
    second = dataclasses.replace(a_table(0), paths=("a/c",), cameras=np.zeros(1, dtype=np.int64))
    expected = "sha256:" + hashlib.sha256(b"a\na/c\nb\n").hexdigest()
    assert file_list_digest([first, second]) == expected == file_list_digest([second, first])


def test_the_file_list_digest_does_not_depend_on_the_place_of_the_folder():
    assert file_list_digest([a_table(3, Path("/a"))]) == file_list_digest([a_table(3, Path("/b"))])
    assert file_list_digest([a_table(3)]) != file_list_digest([a_table(4)])
