"""Transforms that mix channels, against Pillow and loops, and the laws that their draws follow."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp

from pipeline.data.transforms.augmentation import Rectangles
from pipeline.data.transforms.channel_augmentation import (
    LUMINANCE,
    UNCHANGED,
    ChannelChanges,
    apply_channel_changes,
    augment_channels,
    draw_channel_changes,
)
from tests.reference import channel_augmentation as reference

VIEWS = ["visible_one", "visible_two", "infrared"]
CHANNEL_NAMES = {0: 0, 1: 1, 2: 2, LUMINANCE: "luminance", UNCHANGED: "unchanged"}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_pixels(batch, height, width, seed=0):
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator(seed))


def draws(batch, view="infrared", height=96, width=48, padding=10, seed=0):
    return draw_channel_changes(batch, height, width, view, padding=padding, generator=generator(seed))


def augmented(pixels, view="infrared", seed=0, **options):
    return augment_channels(pixels, view, normalisation="imagenet", generator=generator(seed), **options)


def no_changes(batch, **changed):
    zeros = torch.zeros(batch, dtype=torch.int64)
    whole = {"padding": 0, "top": zeros, "left": zeros, "flip": zeros.bool(), "channel": zeros + UNCHANGED}
    return ChannelChanges(**(whole | {"erased": Rectangles(zeros, zeros, zeros, zeros)} | changed))


def expected_images(pixels, changes):
    erased = changes.erased
    return np.stack(
        [
            reference.changed(
                pixels[i].numpy(),
                padding=changes.padding,
                top=int(changes.top[i]),
                left=int(changes.left[i]),
                flip=bool(changes.flip[i]),
                erased=tuple(int(side[i]) for side in (erased.top, erased.left, erased.height, erased.width)),
                channel=CHANNEL_NAMES[int(changes.channel[i])],
            )
            for i in range(len(pixels))
        ]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from(VIEWS),
    st.integers(0, 12),
    st.integers(0, 1000),
)
def test_images_of_any_size_come_out_as_the_slow_twin_makes_them(batch, height, width, view, padding, seed):
    pixels = random_pixels(batch, height, width, seed)
    before = pixels.clone()
    changes = draws(batch, view, height, width, padding, seed)
    output = apply_channel_changes(pixels, changes, "imagenet")
    assert np.abs(output.numpy() - expected_images(pixels, changes)).max() < 2e-6
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("view", VIEWS)
def test_a_whole_batch_comes_out_as_the_slow_twin_makes_it_channels_last_in_memory(view):
    pixels, changes = random_pixels(32, 96, 48), draws(32, view)
    output = apply_channel_changes(pixels, changes, "imagenet")
    assert np.abs(output.numpy() - expected_images(pixels, changes)).max() < 2e-6
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(output, augmented(pixels, view))


def test_the_crop_comes_before_the_flip():
    pixels = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    pixels[0, 0, :, 0] = torch.tensor([10, 20, 30])
    one = torch.ones(1, dtype=torch.int64)
    # Padded 0 10 20 30 0, cut from the left 0 10 20, mirrored.
    output = apply_channel_changes(pixels, no_changes(1, padding=1, top=one, flip=one.bool()), "imagenet")[0, 0, 0]
    assert ((output * 0.229 + 0.485) * 255).round().tolist() == [20, 10, 0]


@pytest.mark.parametrize("normalisation", ["imagenet", "clip"])
def test_what_is_erased_gets_fixed_numbers_after_normalisation_and_then_takes_part_in_mixing(normalisation):
    pixels = random_pixels(3, 2, 2)
    one = torch.ones(3, dtype=torch.int64)
    # The right column of each image; its channels are kept, copied from the last one, and summed up:
    # .2989 * .4914 + .5870 * .4822 + .1140 * .4465 = .14687946 + .2830514 + .050901 = .48083186.
    changes = no_changes(
        3, erased=Rectangles(0 * one, one, 2 * one, one), channel=torch.tensor([UNCHANGED, 2, LUMINANCE])
    )
    corner = apply_channel_changes(pixels, changes, normalisation)[:, :, 1, 1]
    assert corner[0].tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert corner[1].tolist() == pytest.approx([0.4465, 0.4465, 0.4465])
    assert corner[2].tolist() == pytest.approx([0.48083186] * 3)


def test_mixing_acts_on_normalised_numbers_and_copies_them_to_the_last_bit():
    pixels = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8).repeat(5, 1, 1, 1)
    changes = no_changes(5, channel=torch.tensor([0, 1, 2, LUMINANCE, UNCHANGED]))
    red, green, blue, luminance, unchanged = apply_channel_changes(pixels, changes, "imagenet")[:, :, 0, 0]
    # (1 - .485) / .229 = 2.248908, (0 - .456) / .224 = -2.035714, (.2 - .406) / .225 = -.915556;
    # .2989 * 2.248908 - .5870 * 2.035714 - .1140 * .915556 = .672199 - 1.194964 - .104373 = -.627138.
    assert unchanged.tolist() == pytest.approx([2.248908, -2.035714, -0.915556], abs=1e-6)
    assert luminance.tolist() == pytest.approx([-0.627138] * 3, abs=2e-6)
    for channel, copied in enumerate((red, green, blue)):
        assert copied.tolist() == [unchanged[channel].item()] * 3


def kinds_of_colour_patches(view, num_images):
    """How many patches of one colour become their red, green, blue, luminance, and stay as they are; none is erased."""
    patch = torch.tensor([200, 90, 20], dtype=torch.uint8).expand(num_images, 4, 4, 3)
    changes = draws(num_images, view, 4, 4, padding=0)
    whole = no_changes(num_images, flip=changes.flip, channel=changes.channel)
    colours = apply_channel_changes(patch, whole, "imagenet")[:, :, 0, 0].double()
    own = torch.tensor(reference.normalised(np.array([[[200, 90, 20]]], dtype=np.uint8)).ravel())
    luminance = float(own @ torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64))
    kinds = [torch.full((3,), float(value), dtype=torch.float64) for value in (*own, luminance)] + [own]
    counts = [int(torch.isclose(colours, kind, atol=1e-5).all(dim=1).sum()) for kind in kinds]
    assert sum(counts) == num_images
    return counts


def test_the_first_visible_view_keeps_its_colours():
    assert kinds_of_colour_patches("visible_one", 300) == [0, 0, 0, 0, 300]


def test_the_second_visible_view_is_always_one_channel_each_equally_often():
    *channels, luminance, unchanged = kinds_of_colour_patches("visible_two", 6_000)
    assert luminance == unchanged == 0
    assert chisquare(channels).pvalue > 1e-3


def test_an_infrared_view_is_one_channel_in_three_quarters_luminance_in_an_eighth_and_unchanged_in_an_eighth():
    counts = kinds_of_colour_patches("infrared", 8_000)
    assert chisquare(counts, [2_000, 2_000, 2_000, 1_000, 1_000]).pvalue > 1e-3


@pytest.mark.parametrize("view", VIEWS)
def test_flip_and_erasing_happen_to_half_of_the_images_each_independently_of_the_channel(view):
    changes = draws(8_000, view)
    pairs = changes.flip.long() + 2 * (changes.erased.height > 0).long()
    for channel in changes.channel.unique():
        # Four combinations, equally often within each kind.
        assert chisquare(np.bincount(pairs[changes.channel == channel].numpy(), minlength=4)).pvalue > 1e-3


@pytest.mark.parametrize("padding", [0, 2, 10])
def test_crops_start_anywhere_with_equal_probability(padding):
    changes = draws(6_000, padding=padding)
    corners = 2 * padding + 1
    for start in (changes.top, changes.left):
        counts = np.bincount(start.numpy(), minlength=corners)
        assert len(counts) == corners
        assert padding == 0 or chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(288, 144), (60, 6)])
def test_erased_rectangles_follow_the_law_of_trying_a_hundred_times(height, width):
    # In the narrow image most rectangles are too wide at first, so there the tries decide.
    erased = draws(8_000, "visible_one", height, width).erased
    used = erased.height > 0
    twin = random.Random(0)
    drawn = [reference.draw_erased(height, width, twin) for _ in range(4_000)]
    slow = np.array([rectangle for rectangle in drawn if rectangle is not None])
    # A hundred tries always find one here, so half of the images lose a rectangle; four standard deviations.
    assert len(slow) == len(drawn)
    assert abs(float(used.double().mean()) - 0.5) < 4 * (0.25 / 8_000) ** 0.5
    for ours, theirs in zip((erased.top, erased.left, erased.height, erased.width), slow.T, strict=True):
        assert ks_2samp(ours[used].numpy(), theirs).pvalue > 1e-3
    assert bool((erased.top + erased.height <= height).all())
    assert bool((erased.left + erased.width <= width).all())
    assert bool((erased.height[used] < height).all())
    assert bool((erased.width[used] < width).all())


def test_the_ratio_of_the_sides_is_uniform_itself_and_not_its_logarithm():
    erased = draws(8_000, "visible_one", 2_000, 2_000).erased
    used = erased.height > 0
    tall, wide = erased.height[used].double(), erased.width[used].double()
    small = tall * wide / 4e6 < 0.3
    # In a square a share of the area below .3 fits with every ratio, for .3 * 3.333 = 1: no ratio is tried away there,
    # and each tenth of [.3, 3.333] has as many.
    tenth = ((tall / wide)[small] - 0.3) / (1 / 0.3 - 0.3) * 10
    assert chisquare(np.bincount(tenth.long().clamp(0, 9).numpy(), minlength=10)).pvalue > 1e-3


def test_an_image_too_narrow_for_any_rectangle_stays_whole():
    # At least 2 % of 100 pixels and at most 3.333 times as high as wide: sqrt(2 / 3.333) = .77 is one pixel, not less.
    assert not draws(500, "visible_one", height=100, width=1).erased.height.any()


def test_the_same_generator_state_gives_the_same_images_and_two_draws_in_a_row_differ():
    pixels = random_pixels(16, 24, 12)
    one = generator(1)
    first, second = (augment_channels(pixels, "infrared", normalisation="clip", generator=one) for _ in range(2))
    again = augment_channels(pixels, "infrared", normalisation="clip", generator=generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_global_random_state_is_neither_read_nor_moved():
    state = torch.get_rng_state()
    augmented(random_pixels(4, 24, 12))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("view", VIEWS)
def test_parts_of_a_batch_get_the_changes_of_the_whole(view):
    pixels = random_pixels(9, 24, 12)
    whole = augmented(pixels, view, padding=3)
    parts = [slice(0, 4), slice(4, 5), slice(5, 9)]
    pieces = [augmented(pixels[part], view, padding=3, num_images=9, share=part) for part in parts]
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("view", VIEWS)
def test_a_gpu_gives_the_images_of_the_cpu_and_is_not_waited_for(view):
    pixels = random_pixels(32, 96, 48)
    there = pixels.cuda()
    augment_channels(there, view, normalisation="imagenet", generator=generator())  # makes what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = augment_channels(there, view, normalisation="imagenet", generator=generator())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (output.cpu() - augmented(pixels, view)).abs().max() < 2e-6
