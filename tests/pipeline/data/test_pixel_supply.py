"""Pixels on their way to the encoder: the right ones, in order, whichever way they come, and no thread left behind."""

import logging
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.modality import Modality, PerModality
from pipeline.data import pixel_supply
from pipeline.data.images import TrainingImages, gather_pixels
from pipeline.data.pixel_supply import PixelSupply, ResidentPixels, StreamedPixels, supply_pixels

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
WAYS = [StreamedPixels, ResidentPixels]
NUM_IMAGES = 11


def some_images(num_images=NUM_IMAGES, *, seed=0):
    """Random pixels of 4 x 6, more rows than images, in a random order."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num_images + 3, 4, 6, 3), dtype=np.uint8)
    rows = generator.permutation(num_images + 3)[:num_images]
    return TrainingImages(pixels, rows, np.ones(num_images, dtype=np.int64), Modality.INFRARED)


def positions_of(*batches):
    return [np.array(batch, dtype=np.int64) for batch in batches]


def assert_gives(supply, images, batches):
    found = list(supply.batches(batches))
    assert len(found) == len(batches)
    for pixels, batch in zip(found, batches, strict=True):
        assert pixels.dtype == torch.uint8
        np.testing.assert_array_equal(pixels.numpy(), images.pixels[images.rows[batch]])


@pytest.fixture
def reads(monkeypatch):
    """The batches that have been read from the store, of which image 10 cannot be read."""
    done = []

    def read(images, positions, out=None):
        done.append(positions.tolist())
        if 10 in positions:
            raise OSError("the store is gone")
        return gather_pixels(images, positions, out=out)

    monkeypatch.setattr(pixel_supply, "gather_pixels", read)
    return done


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-images")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "batches",
    [
        [],
        [[4]],
        [[10, 0, 3]],
        [[2, 2, 2], [2, 2, 2]],
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]],
        [[5, 1], [], [3]],
    ],
    ids=["no batch", "one image", "one batch", "repetitions", "a smaller last batch", "an empty batch"],
)
def test_each_batch_shows_the_images_asked_for_in_their_order(way, batches):
    images = some_images()
    assert_gives(way(images, CPU), images, positions_of(*batches))


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, NUM_IMAGES - 1), min_size=1, max_size=6), max_size=5), st.integers(0, 99))
def test_any_batches_equal_those_that_are_gathered_one_by_one(way, batches, seed):
    images, batches = some_images(seed=seed), positions_of(*batches)
    found = [pixels.numpy() for pixels in way(images, CPU).batches(batches)]
    expected = [gather_pixels(images, batch) for batch in batches]
    assert len(found) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_supply_can_be_asked_again_and_its_batches_do_not_share_memory(way):
    images = some_images()
    supply = way(images, CPU)
    first, second = supply.batches(positions_of([0, 1], [0, 1]))
    first.zero_()
    np.testing.assert_array_equal(second.numpy(), images.pixels[images.rows[[0, 1]]])
    assert_gives(supply, images, positions_of([1, 0]))
    assert isinstance(supply, PixelSupply)


def test_images_that_move_in_several_chunks_all_arrive(monkeypatch):
    monkeypatch.setattr(pixel_supply, "_CHUNK", 4)
    images = some_images()  # 11 images: chunks of 4, 4 and 3
    assert_gives(ResidentPixels(images, CPU), images, positions_of(range(11)))


def test_resident_pixels_are_read_from_the_store_once_and_forwards(monkeypatch, reads):
    monkeypatch.setattr(pixel_supply, "_CHUNK", 3)
    images = some_images(10)
    supply = ResidentPixels(images, CPU)
    list(supply.batches(positions_of([3, 1], [0])))
    assert [len(chunk) for chunk in reads] == [3, 3, 3, 1]
    assert images.rows[np.concatenate(reads)].tolist() == sorted(images.rows.tolist())


@pytest.mark.parametrize("chunk", [4, 1024])
def test_an_error_while_images_move_reaches_the_caller(monkeypatch, reads, chunk):
    monkeypatch.setattr(pixel_supply, "_CHUNK", chunk)
    with pytest.raises(OSError, match="the store is gone"):
        ResidentPixels(some_images(), CPU)
    assert reading_threads() == []


def test_an_error_while_reading_reaches_the_caller_after_the_batches_before_it(reads):
    batches = StreamedPixels(some_images(), CPU).batches(positions_of([0], [10], [2]))
    assert next(batches).shape == (1, 4, 6, 3)
    with pytest.raises(OSError, match="the store is gone"):
        next(batches)
    assert reading_threads() == []


def test_a_position_beyond_the_last_image_is_refused():
    with pytest.raises(IndexError):
        list(StreamedPixels(some_images(), CPU).batches(positions_of([NUM_IMAGES])))


def test_one_batch_is_read_ahead_and_no_more(reads):
    batches = StreamedPixels(some_images(), CPU).batches(positions_of([0], [2], [3], [4]))
    assert reads == []  # nothing is read before it is asked for
    next(batches)
    batches.close()  # waits for what was begun
    assert reads == [[0], [2]]


def test_the_thread_ends_with_the_last_batch_and_when_the_caller_leaves_early():
    supply = StreamedPixels(some_images(), CPU)
    list(supply.batches(positions_of([0], [1])))
    assert reading_threads() == []
    batches = supply.batches(positions_of([0], [1], [2]))
    next(batches)
    assert len(reading_threads()) == 1
    batches.close()
    assert reading_threads() == []


class TestWhereThePixelsLive:
    """Two modalities of 11 and 20 images of 72 bytes: 2,232 bytes."""

    IMAGES = PerModality(some_images(11), some_images(20))

    @pytest.fixture
    def kept(self, monkeypatch):
        """Images that would be moved to a GPU with 10,000 bytes free."""
        moved = []

        class Moved(StreamedPixels):
            def __init__(self, images, device):
                moved.append((len(images), device))

        monkeypatch.setattr(pixel_supply, "ResidentPixels", Moved)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10_000, 80_000))
        return moved

    def test_a_cpu_streams_and_asks_no_gpu(self, kept, monkeypatch):
        monkeypatch.delattr(torch.cuda, "mem_get_info")
        supplies = supply_pixels(self.IMAGES, CPU, memory_share=1.0)
        assert kept == []
        for supply, images in zip(supplies, self.IMAGES, strict=True):
            assert_gives(supply, images, positions_of([0, 5], [7]))

    def test_what_fits_into_the_share_of_the_free_memory_is_kept_on_the_gpu(self, kept):
        supply_pixels(self.IMAGES, CUDA, memory_share=0.2232)  # exactly: 0.2232 x 10,000 = 2,232
        assert kept == [(11, CUDA), (20, CUDA)]

    @pytest.mark.parametrize("share", [0.0, 0.2231])
    def test_what_does_not_fit_is_streamed_and_the_log_names_both_sizes(self, kept, caplog, monkeypatch, share):
        monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
        with caplog.at_level(logging.INFO, logger="pipeline"):
            supplies = supply_pixels(self.IMAGES, CUDA, memory_share=share)
        assert kept == []
        assert all(type(supply) is StreamedPixels for supply in supplies)
        # 2,232 and 10,000 bytes are 0.00 GB.
        (message,) = set(caplog.messages)  # Prefect may hand on a second copy
        assert message == (
            f"the 0.00 GB of training images are more than {share:g} of the 0.00 GB that cuda:0 has free: "
            "they are streamed"
        )

    def test_sizes_are_those_of_the_images_and_not_of_the_whole_store(self, kept, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8_000_000_000, 80_000_000_000))
        # A store of 100,000 images of 288 x 144, of which each modality has 30,000: 2 x 30,000 x 124,416 bytes.
        store = np.broadcast_to(np.zeros((), dtype=np.uint8), (100_000, 288, 144, 3))
        rows, cameras = np.arange(30_000), np.ones(30_000, dtype=np.int64)
        images = PerModality.build(lambda modality: TrainingImages(store, rows, cameras, modality))
        with caplog.at_level(logging.INFO, logger="pipeline"):
            supply_pixels(images, CUDA, memory_share=0.5)
        assert "the 7.46 GB of training images are more than 0.5 of the 8.00 GB" in caplog.text
        assert kept == []
