"""Training transforms against Pillow, image by image, and the laws that their draws follow."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp

from models.modality import Modality
from pipeline.data.transforms.augmentation import Changes, Rectangles, apply_changes, augment, draw_changes, preprocess
from tests.reference import augmentation as reference


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_pixels(batch, height, width, seed=0):
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator(seed))


def draws(batch, height=96, width=48, modality=Modality.VISIBLE, recipe="cclnet_sysu", padding=10, seed=0):
    return draw_changes(batch, height, width, modality, recipe=recipe, padding=padding, generator=generator(seed))


def expected_images(pixels, changes):
    erased = changes.erased
    return np.stack(
        [
            reference.changed(
                pixels[i].numpy(),
                gray=bool(changes.gray[i]),
                flip=bool(changes.flip[i]),
                padding=changes.padding,
                top=int(changes.top[i]),
                left=int(changes.left[i]),
                erased=tuple(int(side[i]) for side in (erased.top, erased.left, erased.height, erased.width)),
            )
            for i in range(len(pixels))
        ]
    )


def test_preprocessing_divides_by_255_and_normalises_with_the_named_statistics():
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    # Red (0 - .485) / .229; green (1 - .456) / .224; blue (.2 - .406) / .225.
    assert preprocess(pixels, "imagenet").ravel().tolist() == pytest.approx([-2.117904, 2.428571, -0.915556], abs=1e-6)
    # CLIP: (0 - .48145466) / .26862954; (1 - .4578275) / .26130258; (.2 - .40821073) / .27577711.
    assert preprocess(pixels, "clip").ravel().tolist() == pytest.approx([-1.792262, 2.074884, -0.754996], abs=1e-6)


def test_output_is_channels_last_in_memory_whatever_was_asked_for():
    pixels = random_pixels(4, 6, 5)
    for output in (
        preprocess(pixels, "imagenet"),
        augment(pixels, Modality.VISIBLE, recipe="cclnet_sysu", generator=generator()),
        augment(pixels, Modality.INFRARED, recipe="cclnet_regdb", generator=generator()),
    ):
        assert output.dtype == torch.float32
        assert output.shape == (4, 3, 6, 5)
        assert output.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from(list(Modality)),
    st.sampled_from(["cclnet_sysu", "cclnet_regdb"]),
    st.integers(0, 12),
    st.integers(0, 1000),
)
def test_images_of_any_size_come_out_as_pillow_makes_them(batch, height, width, modality, recipe, padding, seed):
    pixels = random_pixels(batch, height, width, seed)
    before = pixels.clone()
    changes = draws(batch, height, width, modality, recipe, padding, seed)
    output = apply_changes(pixels, changes, "imagenet")
    assert np.abs(output.numpy() - expected_images(pixels, changes)).max() < 2e-6
    assert torch.equal(pixels, before)


def test_a_whole_batch_at_training_size_comes_out_as_pillow_makes_it():
    pixels, changes = random_pixels(32, 96, 48), draws(32)
    output = apply_changes(pixels, changes, "imagenet")
    assert np.abs(output.numpy() - expected_images(pixels, changes)).max() < 2e-6


def no_changes(batch, **changed):
    nothing, zeros = torch.zeros(batch, dtype=torch.bool), torch.zeros(batch, dtype=torch.int64)
    whole = {"gray": nothing, "flip": nothing, "padding": 0, "top": zeros, "left": zeros}
    return Changes(**(whole | {"erased": Rectangles(zeros, zeros, zeros, zeros)} | changed))


def test_padding_is_black_before_and_erasing_is_the_mean_colour_after_normalisation():
    pixels = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    one = torch.ones(1, dtype=torch.int64)
    # Cut at the padded image's corner: a row and a column of black, the old top left pixel at the bottom right.
    shifted = apply_changes(pixels, no_changes(1, padding=1), "imagenet")[0, 0]
    black, white = -0.485 / 0.229, 0.515 / 0.229
    assert shifted.ravel().tolist() == pytest.approx([black, black, black, white])
    erased = apply_changes(pixels, no_changes(1, erased=Rectangles(0 * one, one, 2 * one, one)), "imagenet")[0, 0]
    assert erased.ravel().tolist() == pytest.approx([white, 0.0, white, 0.0])


def test_flipping_comes_before_the_crop_shift():
    pixels = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    pixels[0, 0, :, 0] = torch.tensor([10, 20, 30])
    changes = no_changes(1, padding=1, flip=torch.ones(1, dtype=torch.bool), top=torch.ones(1, dtype=torch.int64))
    # Mirrored 30 20 10, padded 0 30 20 10 0, cut from the left.
    output = apply_changes(pixels, changes, "imagenet")[0, 0, 0] * 0.229 + 0.485
    assert (output * 255).round().tolist() == [0, 30, 20]


def test_the_same_generator_state_gives_the_same_images_and_another_one_others():
    pixels = random_pixels(16, 24, 12)
    first, again, other = (
        augment(pixels, Modality.VISIBLE, recipe="cclnet_sysu", padding=3, generator=generator(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_state_is_neither_read_nor_moved():
    pixels = random_pixels(4, 24, 12)
    state = torch.get_rng_state()
    augment(pixels, Modality.VISIBLE, recipe="cclnet_sysu", generator=generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_only_visible_images_lose_their_colours_and_regdb_moves_nothing():
    assert not draws(500, modality=Modality.INFRARED).gray.any()
    for modality in Modality:
        still = draws(500, modality=modality, recipe="cclnet_regdb")
        assert still.padding == 0
        assert not still.flip.any()
        assert not still.top.any()
        assert not still.left.any()
        assert still.gray.any() == (modality is Modality.VISIBLE)
        assert still.erased.height.any()


def test_gray_flip_and_erasing_happen_to_half_of_the_images_each_and_independently():
    changes = draws(8_000)
    erased = changes.erased.height > 0
    kinds = changes.gray.long() + 2 * changes.flip.long() + 4 * erased.long()
    # Eight combinations, a thousand images each.
    assert chisquare(np.bincount(kinds.numpy(), minlength=8)).pvalue > 1e-3


@pytest.mark.parametrize("padding", [0, 2, 10])
def test_crops_start_anywhere_with_equal_probability(padding):
    changes = draws(6_000, padding=padding)
    corners = 2 * padding + 1
    for start in (changes.top, changes.left):
        counts = np.bincount(start.numpy(), minlength=corners)
        assert len(counts) == corners
        assert padding == 0 or chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(288, 144), (60, 12)])
def test_erased_rectangles_follow_the_law_of_trying_ten_times(height, width):
    # In the narrow image most rectangles are too wide at first, so there the tries decide.
    erased = draws(8_000, height, width).erased
    used = erased.height > 0
    twin = random.Random(0)
    drawn = [reference.draw_erased(height, width, twin) for _ in range(4_000)]
    slow = np.array([rectangle for rectangle in drawn if rectangle is not None])
    share = len(slow) / len(drawn)
    # Half of the images, times the share for which a try fits; four standard deviations.
    assert abs(float(used.double().mean()) - 0.5 * share) < 4 * (0.25 / 8_000 + 0.25 / 4_000) ** 0.5
    for ours, theirs in zip((erased.top, erased.left, erased.height, erased.width), slow.T, strict=True):
        assert ks_2samp(ours[used].numpy(), theirs).pvalue > 1e-3
    bottom, right = erased.top + erased.height, erased.left + erased.width
    assert bool((bottom <= height).all())
    assert bool((right <= width).all())
    assert bool((erased.height[used] < height).all())
    assert bool((erased.width[used] < width).all())


def test_an_image_too_narrow_for_any_rectangle_stays_whole():
    # One pixel wide: a rectangle of at least 2 % of 100 pixels would need a width below one.
    assert not draws(500, height=100, width=1).erased.height.any()
