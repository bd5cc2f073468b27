"""Losses on distances against their written-out twins, in value and gradient, and where hands can work them out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.metric_losses import gap_consistency, modality_gap, weighted_triplet
from tests.reference import metric_losses as reference

WEIGHTS = ["stable", "released"]


def random_tensor(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradients(loss, *inputs):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


def assert_same(fast, slow, *inputs):
    value, gradients = value_and_gradients(fast, *inputs)
    expected, expected_gradients = value_and_gradients(slow, *inputs)
    assert torch.allclose(value, expected, atol=1e-10, rtol=0)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(gradient, other, atol=1e-9, rtol=0)


def equidistant(people, images, distance):
    """Each person's images at one point, the points `distance` apart: ends of orthogonal arrows."""
    labels = torch.arange(people).repeat_interleave(images)
    return torch.eye(people, dtype=torch.float64)[labels] * (distance / math.sqrt(2)), labels


def negative_weight(distance, weights):
    """The sum of the weights of 88 persons' images at one distance, read off the loss log(1 + exp(1e-6 - sum * d))."""
    features, labels = equidistant(people=89, images=1, distance=distance)
    loss = weighted_triplet(features, labels, weights)
    return (1e-6 - math.log(math.expm1(loss.item()))) / distance


@pytest.mark.parametrize("weights", WEIGHTS)
@settings(max_examples=25, deadline=None)
@given(
    # The first number names the image, so that one image can occur several times, even as several persons.
    images=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=9),
    size=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_weighted_triplet_equals_its_twin_whatever_persons_and_copies_meet(weights, images, size, seed):
    index, labels = (torch.tensor(column) for column in zip(*images, strict=True))
    assert_same(
        lambda features: weighted_triplet(features, labels, weights),
        lambda features: reference.weighted_triplet(features, labels, weights),
        size * random_tensor((10, 5), seed)[index],
    )


@pytest.mark.parametrize("weights", WEIGHTS)
def test_float32_is_exact_enough_at_the_size_of_a_batch(weights):
    labels = torch.arange(8).repeat_interleave(4).repeat(3)
    features = random_tensor((96, 2048), 0) * 0.05
    features[1] = features[0]
    value, (gradient,) = value_and_gradients(lambda x: weighted_triplet(x, labels, weights), features)
    rounded, (rounded_gradient,) = value_and_gradients(lambda x: weighted_triplet(x, labels, weights), features.float())
    assert rounded.item() == pytest.approx(value.item(), rel=1e-4)
    assert torch.allclose(rounded_gradient.double(), gradient, atol=1e-3 * gradient.abs().max().item(), rtol=0)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_batch_of_one_person_is_held_together_and_pushed_from_nothing(weights):
    # Distances 0 and log 3 have weights 1/4 and 3/4, and there is no one else: log(1 + exp(3/4 log 3)).
    features, labels = torch.tensor([[0.0, 1.0], [math.log(3), 1.0]]), torch.tensor([5, 5])
    value, (gradient,) = value_and_gradients(lambda x: weighted_triplet(x, labels, weights), features)
    assert value.item() == pytest.approx(math.log1p(3**0.75), rel=1e-5)
    # A step against the gradient moves the left image to the right and the right one to the left.
    assert gradient[0, 0] < 0 < gradient[1, 0] and gradient[:, 1].count_nonzero() == 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_two_persons_with_one_image_each_are_pushed_apart(weights):
    # near = 0 and far = log 3: log(1 + 1/3). The released weight of the only other is 1 - 3e-6.
    features = torch.tensor([[0.0], [math.log(3)]])
    value, (gradient,) = value_and_gradients(lambda x: weighted_triplet(x, torch.tensor([0, 1]), weights), features)
    assert value.item() == pytest.approx(math.log(4 / 3), rel=1e-4)
    assert gradient[1, 0] < 0 < gradient[0, 0]


def test_the_farthest_own_image_and_the_nearest_other_one_weigh_most():
    # One person at 0 and log 2, another at log 4 = 2 log 2. Near and far of the three anchors:
    log2 = math.log(2)
    rows = [
        (2 / 3 * log2, 2 * log2),  # at 0: weights (1, 2)/3 on (0, log 2); the other at log 4
        (2 / 3 * log2, log2),  # at log 2: the other at log 2
        (0.0, 2 / 3 * log2 + 1 / 3 * 2 * log2),  # the other: weights (1/2, 1/4)/(3/4) on (log 2, log 4)
    ]
    expected = sum(math.log1p(math.exp(near - far)) for near, far in rows) / 3
    loss = weighted_triplet(torch.tensor([[0.0], [log2], [2 * log2]]), torch.tensor([0, 0, 1]), "stable")
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_stable_weights_sum_to_one_at_any_distance():
    assert negative_weight(1.0, "stable") == pytest.approx(1.0, abs=1e-9)
    assert negative_weight(100.0, "stable") == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("distance", "total"), [(15.0, 0.964), (20.0, 0.154), (30.0, 8e-6)])
def test_released_weights_of_far_persons_fade_out(distance, total):
    # S = 88 exp(-d): 2.692e-5, 1.814e-7, 8.235e-12; the sum is S / (S + 1e-6).
    assert negative_weight(distance, "released") == pytest.approx(total, abs=1e-3)
    powers = 88 * math.exp(-distance)
    assert negative_weight(distance, "released") == pytest.approx(powers / (powers + 1e-6), rel=1e-4)


def test_both_weightings_agree_up_to_distance_5_and_part_at_30():
    labels = torch.arange(8).repeat_interleave(12)
    features = random_tensor((96, 16), 0)
    near = features * 5 / torch.pdist(features).max()  # the largest distance is 5
    assert weighted_triplet(near, labels, "released").item() == pytest.approx(
        weighted_triplet(near, labels, "stable").item(), abs=1e-4
    )
    # Everyone at distance 30 of everyone else: log(1 + exp(-30)) = 0 against log(1 + exp(-0.0002)) = log 2.
    far, labels = equidistant(people=12, images=8, distance=30.0)
    assert weighted_triplet(far, labels, "stable").item() == pytest.approx(0.0, abs=1e-12)
    assert weighted_triplet(far, labels, "released").item() == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_coincident_images_have_a_gradient_of_zero(weights):
    # Every distance is 1e-6, for the own person and for the others: log(1 + exp(0)), with no direction to move in.
    labels = torch.tensor([0, 0, 1, 1])
    value, (gradient,) = value_and_gradients(lambda x: weighted_triplet(x, labels, weights), torch.ones(4, 3))
    assert value.item() == pytest.approx(math.log(2), abs=1e-5)
    assert gradient.count_nonzero() == 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_distances_of_thousands_do_not_overflow_in_float32(weights):
    # The person's images lie 2000 apart, the other person 1000 from both; the hardest pairs take all the weight.
    # Rows of the person: near 2000, far 1000 (released: the far weight is 0). The other: near 0, far 1000.
    features, labels = torch.tensor([[0.0], [2000.0], [1000.0]]), torch.tensor([0, 0, 1])
    value, (gradient,) = value_and_gradients(lambda x: weighted_triplet(x, labels, weights), features)
    expected = {"stable": (1000 + 1000 + 0) / 3, "released": (2000 + 2000 + math.log(2)) / 3}[weights]
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weighted_triplet_is_blind_to_where_features_lie(weights):
    # In float32, far from the origin, inner products would lose the distances; differences keep them.
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    features = torch.randint(-4, 5, (6, 8), generator=torch.Generator().manual_seed(0)).float()
    moved = weighted_triplet(features + 4096.0, labels, weights)
    assert moved.item() == weighted_triplet(features, labels, weights).item()


@settings(max_examples=40, deadline=None)
@given(
    visible=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=8),
    infrared=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_modality_gap_equals_its_twin_whatever_persons_and_copies_meet(visible, infrared, seed):
    images = random_tensor((10, 5), seed)
    index_visible, labels_visible = (torch.tensor(column) for column in zip(*visible, strict=True))
    index_infrared, labels_infrared = (torch.tensor(column) for column in zip(*infrared, strict=True))
    assert_same(
        lambda a, b: modality_gap(a, b, labels_visible, labels_infrared),
        lambda a, b: reference.modality_gap(a, b, labels_visible, labels_infrared),
        images[index_visible],
        images[index_infrared],
    )


@pytest.mark.parametrize("images", [2, 4])
@pytest.mark.parametrize("twin", [reference.modality_gap_in_blocks, reference.modality_gap_by_largest])
def test_modality_gap_equals_the_forms_for_equally_many_images(twin, images):
    labels = torch.arange(3).repeat_interleave(images)
    shuffle = torch.randperm(3 * images, generator=torch.Generator().manual_seed(0))
    assert_same(
        lambda a, b: modality_gap(a[shuffle], b, labels[shuffle], labels),
        lambda a, b: twin(a, b, images),
        random_tensor((3 * images, 6), 1),
        random_tensor((3 * images, 6), 2),
    )


@pytest.mark.parametrize("twin", [reference.modality_gap_in_blocks, reference.modality_gap_by_largest])
def test_modality_gap_equals_the_other_forms_with_an_image_drawn_twice(twin):
    labels = torch.arange(2).repeat_interleave(4)
    visible, infrared = random_tensor((8, 6), 1), random_tensor((8, 6), 2)
    visible[1], infrared[6] = visible[0], infrared[7]
    value, gradients = value_and_gradients(lambda a, b: modality_gap(a, b, labels, labels), visible, infrared)
    assert value.item() == pytest.approx(twin(visible, infrared, 4).item(), abs=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_modality_gap_is_zero_where_all_distances_agree():
    # Four corners of a regular simplex, each sqrt 2 from the others: two visible, two infrared.
    corners, one_person = torch.eye(4), torch.zeros(2, dtype=torch.int64)
    value, gradients = value_and_gradients(
        lambda a, b: modality_gap(a, b, one_person, one_person), corners[:2], corners[2:]
    )
    assert value.item() == 0.0 and all(gradient.count_nonzero() == 0 for gradient in gradients)


def test_modality_gap_of_copies_counts_an_image_among_the_other_modality_but_not_its_own():
    # At 0 and 2 in both: 2 to the other image of the same modality, (0 + 2) / 2 across. Every gap is 1 squared.
    points, one_person = torch.tensor([[0.0], [2.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    value, gradients = value_and_gradients(lambda a, b: modality_gap(a, b, one_person, one_person), points, points)
    assert value.item() == pytest.approx(1.0, abs=1e-5)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_modality_gap_of_one_point_is_zero_with_zero_gradients():
    points, labels = torch.ones(6, 3), torch.tensor([0, 0, 0, 1, 1, 1])
    value, gradients = value_and_gradients(lambda a, b: modality_gap(a, b, labels, labels), points, points)
    assert value.item() == 0.0 and all(gradient.count_nonzero() == 0 for gradient in gradients)


def test_an_image_without_a_second_one_of_its_own_modality_is_left_out_but_still_counted_by_others():
    # Visible 0 has no other visible image. Infrared 1 and 3: 2 from each other, 1 and 3 across; half of (1 + 1) / 2.
    visible, infrared = torch.tensor([[0.0]]), torch.tensor([[1.0], [3.0]])
    loss = modality_gap(visible, infrared, torch.tensor([4]), torch.tensor([4, 4]))
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_a_person_of_one_modality_changes_neither_value_nor_gradient():
    labels = torch.tensor([0, 0, 1, 1])
    visible, infrared = random_tensor((6, 3), 0), random_tensor((4, 3), 1)
    value, (gradient, other) = value_and_gradients(
        lambda a, b: modality_gap(a, b, torch.tensor([0, 0, 1, 1, 2, 2]), labels), visible, infrared
    )
    expected, (kept, other_kept) = value_and_gradients(
        lambda a, b: modality_gap(a, b, labels, labels), visible[:4], infrared
    )
    assert torch.allclose(value, expected, atol=1e-12, rtol=0)
    assert torch.allclose(gradient[:4], kept, atol=1e-12, rtol=0) and gradient[4:].count_nonzero() == 0
    assert torch.allclose(other, other_kept, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("labels_visible", "labels_infrared"),
    [([0, 0, 1], [2, 2, 3]), ([0, 1, 2], [0, 1, 2])],
    ids=["no person in both modalities", "one image a person and modality"],
)
def test_a_batch_without_anything_to_compare_costs_nothing_and_can_be_differentiated(labels_visible, labels_infrared):
    value, gradients = value_and_gradients(
        lambda a, b: modality_gap(a, b, torch.tensor(labels_visible), torch.tensor(labels_infrared)),
        random_tensor((3, 4), 0, torch.float32),
        random_tensor((3, 4), 1, torch.float32),
    )
    assert value.item() == 0.0 and all(gradient.count_nonzero() == 0 for gradient in gradients)


def test_modality_gap_moves_both_modalities_and_does_not_know_which_is_which():
    labels_visible, labels_infrared = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 0, 1, 0])
    visible, infrared = random_tensor((5, 3), 0), random_tensor((4, 3), 1)
    value, gradients = value_and_gradients(
        lambda a, b: modality_gap(a, b, labels_visible, labels_infrared), visible, infrared
    )
    assert all(gradient.abs().sum(dim=1).min() > 0 for gradient in gradients)
    exchanged = modality_gap(infrared, visible, labels_infrared, labels_visible)
    assert torch.allclose(exchanged, value, atol=1e-12, rtol=0)


def test_modality_gap_in_float32_is_exact_enough_at_the_size_of_a_batch():
    labels = torch.arange(8).repeat_interleave(4)
    visible, infrared = random_tensor((32, 2048), 0) * 0.05, random_tensor((32, 2048), 1) * 0.08
    exact = modality_gap(visible, infrared, labels, labels)
    rounded = modality_gap(visible.float(), infrared.float(), labels, labels)
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-4)


EVERYONE = torch.ones(2, 2, dtype=torch.bool)


@pytest.mark.parametrize(("detach", "moves_within"), [("none", True), ("intra", False)])
def test_consistency_moves_both_sides_or_takes_the_own_modality_for_granted(detach, moves_within):
    # Row means 2 and 6 inside, 3 and 4 across: (1 + 4) / 2. Each distance across is half a mean, each mean half of the
    # loss: slopes 2 * 1 / 4 and 2 * (-2) / 4.
    within, across = torch.tensor([[1.0, 3.0], [6.0, 6.0]]), torch.tensor([[3.0, 3.0], [0.0, 8.0]])
    value, (inside, outside) = value_and_gradients(
        lambda a, b: gap_consistency(a, b, EVERYONE, EVERYONE, detach=detach) + 0 * a.sum(), within, across
    )
    assert value.item() == 2.5
    assert outside.tolist() == [[0.5, 0.5], [-1.0, -1.0]]
    assert inside.tolist() == ((-outside).tolist() if moves_within else [[0.0, 0.0], [0.0, 0.0]])


def test_consistency_counts_what_it_is_told_to_and_leaves_incomplete_rows_out():
    # Row 0 counts one distance inside and both across: (5 - 1) squared. Row 1 has none across.
    within, across = torch.tensor([[1.0, 9.0], [6.0, 6.0]]), torch.tensor([[4.0, 6.0], [0.0, 8.0]])
    own, other = torch.tensor([[True, False], [True, True]]), torch.tensor([[True, True], [False, False]])
    assert gap_consistency(within, across, own, other, detach="none").item() == 16.0


def test_consistency_is_zero_where_both_sides_agree():
    within = random_tensor((2, 2), 0)
    value, gradients = value_and_gradients(
        lambda a, b: gap_consistency(a, b, EVERYONE, EVERYONE, detach="none"), within, within
    )
    assert value.item() == 0.0 and all(gradient.count_nonzero() == 0 for gradient in gradients)
