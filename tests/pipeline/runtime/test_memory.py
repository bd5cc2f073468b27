"""What is said where a device has too little memory: the size that fits, found by trying."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.encoder import Encoded, Head
from models.modality import Modality
from pipeline.data.images import TrainingImages
from pipeline.errors import TrainingError
from pipeline.features import extract_features
from pipeline.runtime.device import largest_fitting


class Memory:
    """Room for so many things at once; notes what was tried."""

    def __init__(self, room):
        self.room = room
        self.tried = []

    def __call__(self, size):
        self.tried.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError(f"no room for {size}")
        return size


@pytest.mark.parametrize(
    ("too_many", "room", "tried", "found"),
    [
        (64, 63, [32], 32),
        (64, 9, [32, 16, 8], 8),
        (100, 7, [50, 25, 12, 6], 6),  # halves are rounded down
        (3, 1, [1], 1),
        (64, 0, [32, 16, 8, 4, 2, 1], None),
        (1, 0, [], None),
    ],
)
def test_a_size_is_halved_until_it_fits(too_many, room, tried, found):
    memory = Memory(room)
    assert largest_fitting(memory, too_many) == found
    assert memory.tried == tried


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_what_is_found_fits_and_more_than_half_of_what_would(too_many, room):
    room = min(room, too_many - 1)
    found = largest_fitting(Memory(room), too_many)
    if room == 0:
        assert found is None
    else:
        # The size before was too large, and at most 2 found + 1: 2 found + 1 > room.
        assert 1 <= found <= room < 2 * found + 2


def test_another_error_is_passed_on():
    def fail(size):
        raise ValueError(f"wrong for {size}")

    with pytest.raises(ValueError, match="wrong for 4"):
        largest_fitting(fail, 8)


class SmallEncoder(nn.Module):
    """The mean colour of each image, on a device with room for some images at once."""

    def __init__(self, room):
        super().__init__()
        self.memory = Memory(room)

    def encode(self, images: torch.Tensor, modality: Modality, *, heads: frozenset[Head]) -> Encoded:
        self.memory(len(images))
        assert (modality, heads) == (Modality.VISIBLE, {Head.NECK})
        return Encoded(neck=images.mean((2, 3)), projection=None, pooled=None)


def extract(room, *, batch_size, num_images=20):
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, 4, 6, 3), dtype=np.uint8)
    images = TrainingImages(pixels, np.arange(num_images), np.ones(num_images, dtype=np.int64), Modality.VISIBLE)
    return extract_features(
        SmallEncoder(room),
        images,
        heads=(Head.NECK,),
        batch_size=batch_size,
        device=torch.device("cpu"),
        normalisation="imagenet",
    )


@pytest.mark.parametrize(("batch_size", "fits"), [(16, 4), (11, 5), (6, 3)])
def test_an_extraction_that_does_not_fit_names_the_batch_size_that_does(batch_size, fits):
    with pytest.raises(TrainingError, match=f"cpu has too little memory to encode {batch_size} images") as caught:
        extract(5, batch_size=batch_size)
    assert caught.value.hint == f"{fits} fit: --set execution.extraction_batch_size={fits}"
    assert extract(5, batch_size=fits).vectors.shape == (20, 3)


def test_an_extraction_of_which_not_one_image_fits_says_so():
    with pytest.raises(TrainingError, match="to encode 8 images at once") as caught:
        extract(0, batch_size=8)
    assert caught.value.hint.startswith("not even one fits")


def test_the_last_smaller_batch_of_an_extraction_may_be_what_does_not_fit():
    # One batch of all 6 images, because there are no more: the message counts what was there.
    with pytest.raises(TrainingError, match="to encode 6 images at once") as caught:
        extract(3, batch_size=512, num_images=6)
    assert "extraction_batch_size=3" in caught.value.hint
