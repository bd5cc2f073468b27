"""Views fused in blocks against a loop over anchors, in value and gradient; rows without others; whose weights."""

import math

import pytest
import torch
from torch import nn

from models.fusion import ViewFusion, build_view_fusion, other_views
from tests.reference.view_fusion import fused_views

WIDTH, HEADS = 6, 3
KINDS = ["separate", "shared", "text_only"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def rows(count, seed=1, width=WIDTH):
    return torch.randn(count, width, generator=seeded(seed), dtype=torch.float64)


def make(seed=0, heads=HEADS, zero_init=False, width=WIDTH):
    return ViewFusion(width, heads, zero_init, seeded(seed)).double()


def output_and_gradients(fuse, features, parameters):
    """Of a loss that weighs every number of the output differently."""
    features = features.clone().requires_grad_()
    fused = fuse(features)
    loss = (fused * torch.linspace(-1.0, 2.0, fused.numel(), dtype=fused.dtype).view_as(fused)).sum()
    return fused.detach(), torch.autograd.grad(loss, [features, *parameters])


@pytest.mark.parametrize(
    ("positions", "images_per_person"),
    [
        ([0, 1, 2, 3, 4, 5], 2),
        ([0, 1, 2, 3, 4, 5, 6, 7], 4),
        ([0, 0, 2, 3, 4, 4, 6, 6], 4),  # images drawn twice
        ([7, 7, 7, 3, 4, 5], 3),  # a person with a single image, beside one with three
    ],
    ids=["pairs", "fours", "copies", "an image alone"],
)
@pytest.mark.parametrize("heads", [1, 3])
def test_blocks_equal_a_loop_over_anchors(positions, images_per_person, heads):
    fusion, positions, features = make(heads=heads), torch.tensor(positions), rows(len(positions))
    features = features[torch.tensor([positions.tolist().index(p) for p in positions.tolist()])]  # copies look alike
    leaves = {name: value.detach().clone().requires_grad_() for name, value in fusion.named_parameters()}
    fused, gradients = output_and_gradients(
        lambda some: fusion(some, positions, images_per_person), features, list(fusion.parameters())
    )
    expected, expected_gradients = output_and_gradients(
        lambda some: fused_views(leaves, some, positions, images_per_person, heads), features, list(leaves.values())
    )
    assert torch.allclose(fused, expected, atol=1e-12, rtol=0)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(gradient, other, atol=1e-11, rtol=0)


def test_blocks_equal_a_loop_over_anchors_in_float32_to_a_millionth():
    fusion = make(width=64, heads=8)
    features, positions = rows(32, width=64), torch.arange(32)
    expected = fused_views(dict(fusion.named_parameters()), features, positions, 4, 8)
    found = fusion.float()(features.float(), positions, 4)
    assert torch.allclose(found.double(), expected, atol=1e-6 * expected.abs().max().item(), rtol=0)


def test_one_image_a_person_comes_back_bit_for_bit():
    features = rows(5)
    assert torch.equal(make()(features, torch.arange(5), 1), features)


def test_a_person_with_a_single_image_drawn_several_times_comes_back_bit_for_bit_with_a_gradient_of_one():
    # The first person's three rows show one image; the second person has three.
    features = rows(6).requires_grad_()
    fusion = make()
    fused = fusion(features, torch.tensor([9, 9, 9, 1, 2, 3]), 3)
    assert torch.equal(fused[:3], features[:3]) and not torch.equal(fused[3:], features[3:])
    gradients = torch.autograd.grad(fused[:3].sum(), [features, *fusion.parameters()])
    assert torch.equal(gradients[0], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).double()[:, None].expand(6, WIDTH))
    assert all(gradient.count_nonzero() == 0 for gradient in gradients[1:])


def test_the_order_of_the_other_views_does_not_matter():
    features, positions = rows(4), torch.arange(4)
    order = torch.tensor([0, 3, 1, 2])
    fusion = make()
    one, other = fusion(features, positions, 4), fusion(features[order], positions, 4)
    assert torch.allclose(other, one[order], atol=1e-12, rtol=0)


def test_a_row_is_neither_a_key_nor_a_value_of_itself_nor_of_its_copies():
    # A query that does not depend on the row leaves what it reads as the only way to itself, beside the residual.
    fusion = make()
    nn.init.zeros_(fusion.query.weight)
    positions, features, noise = torch.tensor([0, 0, 2, 3]), rows(4), rows(4)
    features[1] = features[0]
    noise[2:] = features[2:]
    before = fusion(features, positions, 4) - features
    after = fusion(noise, positions, 4) - noise
    assert torch.allclose(after[:2], before[:2], atol=1e-12, rtol=0)
    assert (after[2:] - before[2:]).abs().min() > 1e-6


def test_an_only_other_view_is_read_whole_whatever_is_asked_for():
    # Two images a person: the only share is 1, so that the first row becomes x0 + output(value(x1)).
    fusion, features = make(), rows(2)
    expected = features + fusion.output(fusion.value(features.flip(0)))
    assert torch.allclose(fusion(features, torch.arange(2), 2), expected, atol=1e-12, rtol=0)


def test_the_view_that_is_looked_for_is_preferred():
    # Width 1, all maps 1: row 0 asks for 1. The others, log 3 and 0, are their own scores: shares 3/4 and 1/4.
    fusion = make(width=1, heads=1)
    for name, parameter in fusion.named_parameters():
        nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
    features = torch.tensor([[1.0], [math.log(3)], [0.0]], dtype=torch.float64)
    fused = fusion(features, torch.arange(3), 3)
    assert fused[0].item() == pytest.approx(1 + 3 / 4 * math.log(3), abs=1e-12)


def test_people_do_not_read_each_other():
    features, fusion = rows(6), make()
    alone = torch.cat([fusion(features[i : i + 3], torch.arange(3), 3) for i in (0, 3)])
    assert torch.allclose(fusion(features, torch.arange(6), 3), alone, atol=1e-12, rtol=0)


def test_a_zero_start_gives_everything_back_and_still_learns():
    fusion, features = make(zero_init=True), rows(4)
    fused, gradients = output_and_gradients(
        lambda some: fusion(some, torch.arange(4), 4), features, [fusion.output.weight]
    )
    assert torch.equal(fused, features)
    assert gradients[1].abs().max() > 1e-6


def test_no_weight_exists_that_does_nothing():
    # Two maps of 36 + 6 numbers and two of 36.
    fusion = make()
    assert sum(parameter.numel() for parameter in fusion.parameters()) == 2 * 42 + 2 * 36
    _, gradients = output_and_gradients(
        lambda some: fusion(some, torch.arange(6), 3), rows(6), list(fusion.parameters())
    )
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients)


def test_the_generator_decides_the_weights_and_torchs_own_stays_untouched():
    before = torch.random.get_rng_state()
    first, again, other = (make_pair("separate", seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())
    # Uniform within 1 / sqrt(6) = 0.408.
    assert all(0.2 < value.abs().max() <= 6**-0.5 for value in first.values())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="4 heads of attention do not divide a width of 6"):
        make(heads=4)


def test_equal_positions_are_no_views_of_each_other():
    views = other_views(torch.tensor([5, 6, 5, 1, 1, 1]), 3)
    assert views.int().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def make_pair(kind, seed=0):
    return build_view_fusion(kind, WIDTH, heads=HEADS, zero_init=False, generator=seeded(seed)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_fused_by_their_weights_and_images_by_those_of_the_kind(kind):
    pair, images, texts, positions = make_pair(kind), rows(4, 1), rows(4, 2), torch.arange(4)
    fused_images, fused_texts = pair(images, texts, positions, 2)
    assert torch.equal(fused_texts, pair.texts(texts, positions, 2))
    by_the_weights_of_texts = pair.texts(images, positions, 2)
    assert torch.equal(fused_images, by_the_weights_of_texts) == (kind == "shared")
    assert torch.equal(fused_images, images) == (kind == "text_only")


@pytest.mark.parametrize(("kind", "fusions"), [("separate", 2), ("shared", 1), ("text_only", 1)])
def test_weights_exist_once_for_each_side_that_has_its_own(kind, fusions):
    pair = make_pair(kind)
    # One fusion has 156 numbers: two maps of 42, two of 36.
    assert sum(parameter.numel() for parameter in pair.parameters()) == 156 * fusions
    other = build_view_fusion(kind, WIDTH, heads=HEADS, zero_init=True, generator=seeded(5)).double()
    other.load_state_dict(pair.state_dict())
    images, texts, positions = rows(4, 1), rows(4, 2), torch.arange(4)
    for one, again in zip(pair(images, texts, positions, 2), other(images, texts, positions, 2), strict=True):
        assert torch.equal(one, again)
