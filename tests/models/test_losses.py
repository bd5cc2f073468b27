"""Losses against their written-out twins, in value and gradient, and at their edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.losses import (
    camera_contrast,
    cross_contrast,
    prompt_contrast,
    prototype_contrast,
    share_contrast,
    text_classification,
    text_contrast,
    unified_contrast,
)
from tests.reference import losses as reference


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


def assert_zero_with_zero_gradients(loss, *inputs):
    value, gradients = value_and_gradients(loss, *inputs)
    assert value.item() == 0.0
    assert all(gradient.count_nonzero() == 0 for gradient in gradients)


LABELS = st.lists(st.integers(-1, 3), min_size=1, max_size=9)


def test_ten_equal_prototypes_give_the_logarithm_of_ten():
    # Each gets probability 1/10, whatever the temperature.
    logits = torch.full((3, 10), 16.0)
    assert prototype_contrast(logits, torch.tensor([0, 4, 9])).item() == pytest.approx(math.log(10))


@settings(max_examples=30, deadline=None)
@given(LABELS, st.integers(0, 1000))
def test_prototype_contrast_equals_its_twin(labels, seed):
    labels = torch.tensor(labels)
    assert_same(
        lambda logits: prototype_contrast(logits, labels),
        lambda logits: reference.smoothed_cross_entropy(logits, labels, 0.0),
        random_tensor((len(labels), 4), seed),
    )


def test_a_single_cluster_gives_exactly_nothing_to_learn():
    assert_zero_with_zero_gradients(
        lambda logits: prototype_contrast(logits, torch.zeros(4, dtype=torch.int64)),
        random_tensor((4, 1), 0, torch.float32),
    )


@settings(max_examples=30, deadline=None)
@given(LABELS, st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 1000))
def test_text_classification_equals_its_twin(labels, smoothing, seed):
    labels = torch.tensor(labels)
    assert_same(
        lambda logits: text_classification(logits, labels, smoothing),
        lambda logits: reference.smoothed_cross_entropy(logits, labels, smoothing),
        random_tensor((len(labels), 4), seed),
    )


def test_smoothing_spreads_a_tenth_of_the_target_over_all_texts():
    # Probabilities 3/4 and 1/4, target 0.95 and 0.05.
    logits = torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.95 * math.log(4 / 3) + 0.05 * math.log(4)
    assert text_classification(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_images_without_a_text_count_as_if_they_were_absent():
    logits, labels = random_tensor((5, 4), 0), torch.tensor([2, -1, 0, -1, 3])
    value, (gradient,) = value_and_gradients(lambda x: text_classification(x, labels), logits)
    kept = labels >= 0
    expected = functional.cross_entropy(logits[kept], labels[kept], label_smoothing=0.1)
    assert torch.allclose(value, expected, atol=1e-12, rtol=0)
    assert gradient[~kept].count_nonzero() == 0


@pytest.mark.parametrize("loss", [text_classification, prototype_contrast])
def test_a_batch_without_any_label_costs_nothing_and_can_be_differentiated(loss):
    labels = torch.full((3,), -1)
    assert_zero_with_zero_gradients(lambda logits: loss(logits, labels), random_tensor((3, 4), 0, torch.float32))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.sampled_from([1.0, 0.5]),
    st.integers(0, 1000),
)
def test_text_contrast_equals_its_twin_whatever_labels_meet(anchor_labels, target_labels, temperature, seed):
    ya, yb = torch.tensor(anchor_labels), torch.tensor(target_labels)
    assert_same(
        lambda a, b: text_contrast(a, b, ya, yb, temperature=temperature),
        lambda a, b: reference.supervised_contrast(a, b, ya, yb, temperature),
        random_tensor((len(ya), 5), seed),
        random_tensor((len(yb), 5), seed + 1),
    )


def test_text_contrast_is_cross_entropy_where_every_label_occurs_once():
    anchors, targets = random_tensor((4, 5), 0), random_tensor((4, 5), 1)
    order = torch.tensor([2, 0, 3, 1])
    value = text_contrast(anchors, targets, torch.arange(4), order)
    # The target of label y stands at the place of y in `order`.
    expected = functional.cross_entropy(anchors @ targets.T, order.argsort())
    assert torch.allclose(value, expected, atol=1e-12, rtol=0)


def test_text_contrast_does_not_see_a_constant_added_to_a_row_of_similarities():
    anchors, targets = random_tensor((4, 5), 0), random_tensor((6, 5), 1)
    labels = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 0, 1, 2])
    # One more dimension in which all targets are 1 adds the anchor's number to its whole row.
    shifted = torch.cat([anchors, random_tensor((4, 1), 2)], dim=1), torch.cat([targets, torch.ones(6, 1)], dim=1)
    assert torch.allclose(text_contrast(*shifted, *labels), text_contrast(anchors, targets, *labels), atol=1e-12)


def test_an_anchor_without_a_positive_is_excluded_and_only_such_anchors_give_zero():
    anchors, targets = random_tensor((3, 5), 0), random_tensor((2, 5), 1)
    target_labels = torch.tensor([0, 1])
    value = text_contrast(anchors, targets, torch.tensor([0, 7, 1]), target_labels)
    assert torch.allclose(value, text_contrast(anchors[[0, 2]], targets, target_labels, target_labels), atol=1e-12)
    strangers = torch.tensor([5, 6, 7])
    assert_zero_with_zero_gradients(lambda a, b: text_contrast(a, b, strangers, target_labels), anchors, targets)


def one_text_a_sample(features, texts, index):
    own = texts[index]
    return reference.supervised_contrast(features, own, index, index) + reference.supervised_contrast(
        own, features, index, index
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=10), st.integers(0, 1000))
def test_prompt_contrast_equals_both_directions_with_one_text_a_sample(index, seed):
    # Some of the five texts belong to no sample: they must count for nothing.
    index = torch.tensor(index)
    assert_same(
        lambda features, texts: prompt_contrast(features, texts, index),
        lambda features, texts: one_text_a_sample(features, texts, index),
        random_tensor((len(index), 6), seed),
        random_tensor((5, 6), seed + 1),
    )


def test_prompt_contrast_equals_text_contrast_in_float32_at_the_size_of_features():
    index = torch.randint(0, 40, (128,), generator=torch.Generator().manual_seed(0))
    features, texts = random_tensor((128, 64), 1, torch.float32), random_tensor((40, 64), 2, torch.float32)
    expected = text_contrast(features, texts[index], index, index) + text_contrast(texts[index], features, index, index)
    assert prompt_contrast(features, texts, index).item() == pytest.approx(expected.item(), rel=1e-4)


def test_two_equal_samples_of_one_text_cost_the_logarithm_of_two_in_each_direction():
    # Image to text: two copies of the text are alike, each gets 1/2. Text to image: two images are alike.
    features = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    loss = prompt_contrast(features, torch.tensor([[0.5, -1.0]]), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(2 * math.log(2))


def test_a_batch_of_one_sample_gives_exactly_nothing_to_learn():
    assert_zero_with_zero_gradients(
        lambda features, texts: prompt_contrast(features, texts, torch.tensor([0])),
        random_tensor((1, 6), 0, torch.float32),
        random_tensor((1, 6), 1, torch.float32),
    )


PAIRED = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 3), st.floats(0, 1), st.sets(st.integers(0, 6), max_size=2)),
    min_size=1,
    max_size=7,
)
"""Cluster of a row, its partner among four or -1, the weight of the pair, and columns that are no negatives."""


def pairs_of(rows):
    labels, partners, weights, excluded = (list(column) for column in zip(*rows, strict=True))
    clusters, shares = torch.tensor(labels)[:, None], torch.ones(len(rows), 1).double()
    left = [sorted(some - {3 + partner}) for some, partner in zip(excluded, partners, strict=True)]
    padded = torch.tensor([[*some, -1, -1][:2] for some in left])
    return clusters, shares, torch.tensor(partners), torch.tensor(weights).double(), padded


SHARED = st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1))


def test_soft_targets_are_shares_of_the_log_probabilities():
    # Two equal prototypes: each has probability 1/2, so a row costs its weight times log 2.
    logits, clusters = torch.zeros(2, 2).double(), torch.tensor([[0, 1], [1, 0]])
    shares = torch.tensor([[0.75, 0.25], [0.5, 0.0]]).double()
    assert share_contrast(logits, clusters, shares).item() == pytest.approx((1 + 0.5) / 2 * math.log(2))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_soft_targets_equal_their_twin(rows, seed):
    clusters = torch.tensor([row[:2] for row in rows])
    shares = torch.tensor([[row[2], 1 - row[2]] for row in rows]).double()
    assert_same(
        lambda logits: share_contrast(logits, clusters, shares),
        lambda logits: reference.share_contrast(logits, clusters, shares),
        random_tensor((len(rows), 4), seed),
    )


def test_one_share_of_one_is_the_contrast_with_labels():
    labels = torch.tensor([0, 3, 2])
    assert_same(
        lambda logits: share_contrast(logits, labels[:, None], torch.ones(3, 1).double()),
        lambda logits: prototype_contrast(logits, labels),
        random_tensor((3, 4), 1),
    )


@settings(max_examples=30, deadline=None)
@given(PAIRED, st.integers(0, 1000))
def test_unified_contrast_equals_its_twin(rows, seed):
    given_pairs = pairs_of(rows)
    assert_same(
        lambda own, other: unified_contrast(own, other, *given_pairs),
        lambda own, other: reference.unified_contrast(own, other, *given_pairs),
        random_tensor((len(rows), 3), seed),
        random_tensor((len(rows), 4), seed + 1),
    )


NOTHING = torch.tensor([-1]), torch.zeros(1).double(), torch.empty(1, 0, dtype=torch.int64)
"""No partner, no weight and no excluded column, for one row."""


def test_unified_contrast_with_an_empty_memory_is_the_contrast_of_the_other():
    own, labels = random_tensor((5, 3), 1), torch.tensor([0, 2, 1, 1, 0])
    nothing = [torch.cat([one] * 5) for one in NOTHING]
    assert_same(
        lambda logits: unified_contrast(logits, logits[:, :0], labels[:, None], torch.ones(5, 1).double(), *nothing),
        lambda logits: prototype_contrast(logits, labels),
        own,
    )


def test_unified_contrast_does_not_depend_on_the_order_of_the_other_memory():
    labels, ones, partners, weights, excluded = pairs_of([(0, 2, 1.0, set()), (1, -1, 0.0, {4}), (2, 0, 0.5, {0})])
    own, other, order = random_tensor((3, 3), 1), random_tensor((3, 4), 2), torch.tensor([2, 0, 3, 1])
    place = torch.cat([order.argsort(), torch.tensor([-1])])
    moved = torch.cat([torch.arange(3), 3 + order.argsort(), torch.tensor([-1])])
    value = unified_contrast(own, other, labels, ones, partners, weights, excluded)
    again = unified_contrast(own, other[:, order], labels, ones, place[partners], weights, moved[excluded])
    assert torch.allclose(value, again)


@pytest.mark.parametrize(("columns", "expected"), [([1], math.log(2)), ([1, 2], 0.0), ([0, 1], math.log(2))])
def test_excluded_columns_are_no_negatives_and_positives_are_not_excluded(columns, expected):
    own, other = torch.zeros(1, 1).double(), torch.tensor([[9.0, 0.0]]).double()
    labels, one, excluded = torch.tensor([[0]]), torch.ones(1, 1).double(), torch.tensor([columns])
    assert unified_contrast(own, other, labels, one, *NOTHING[:2], excluded).item() == pytest.approx(expected)
    assert unified_contrast(own, other, labels, one, *NOTHING).item() > 9


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.5, 1.0])
def test_a_doubted_partner_is_never_repelled(weight):
    own, other = torch.zeros(1, 2).double(), torch.zeros(1, 3).double().requires_grad_()
    labels, one, weights = torch.tensor([[0]]), torch.ones(1, 1).double(), torch.tensor([weight]).double()
    unified_contrast(own, other, labels, one, torch.tensor([1]), weights, NOTHING[2]).backward()
    towards = -other.grad[0]
    assert towards[1] == 0 if weight == 0 else towards[1] > 0
    assert (towards[[0, 2]] < 0).all()


@settings(max_examples=20, deadline=None)
@given(PAIRED, st.integers(0, 1000))
def test_a_row_of_half_the_weight_has_half_the_unified_contrast(rows, seed):
    own, other = random_tensor((len(rows), 3), seed), random_tensor((len(rows), 4), seed + 1)
    clusters, shares, *pairs = pairs_of(rows)
    half = unified_contrast(own, other, clusters, shares / 2, *pairs)
    assert torch.allclose(half, unified_contrast(own, other, clusters, shares, *pairs) / 2)


@settings(max_examples=30, deadline=None)
@given(PAIRED, st.integers(0, 1000))
def test_cross_contrast_equals_its_twin(rows, seed):
    _, _, partners, weights, _ = pairs_of(rows)
    assert_same(
        lambda logits: cross_contrast(logits, partners, weights),
        lambda logits: reference.cross_contrast(logits, partners, weights),
        random_tensor((len(rows), 4), seed),
    )


CLUSTERS_OF_PROXIES = torch.tensor([0, 0, 0, 1, 1, 2, 3])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1, 6), min_size=1, max_size=8), st.sampled_from([1, 2, 50]), st.integers(0, 1000))
def test_camera_contrast_equals_its_twin(own, num_negatives, seed):
    own = torch.tensor(own)
    assert_same(
        lambda logits: camera_contrast(logits, own, CLUSTERS_OF_PROXIES, num_negatives),
        lambda logits: reference.camera_contrast(logits, own, CLUSTERS_OF_PROXIES, num_negatives),
        random_tensor((len(own), 7), seed),
    )


def test_the_mean_over_other_cameras_is_that_of_logarithms():
    # Positives have logits log 3 and 0, the two nearest of the negatives log 2 and 0: 6/3 and 4/1.
    logits = torch.tensor([[9.0, math.log(3), 0.0, 0.0, -9.0, math.log(2), -9.0]])
    value = camera_contrast(logits, torch.tensor([0]), CLUSTERS_OF_PROXIES, 2)
    assert value.item() == pytest.approx((math.log(6 / 3) + math.log(4)) / 2)


def test_proxies_of_one_cluster_are_never_negatives_of_each_other():
    # The most similar proxy is that of the image's cluster in its own camera: neither a positive nor a negative.
    logits = random_tensor((1, 7), 4)
    value, (gradient,) = value_and_gradients(
        lambda x: camera_contrast(x, torch.tensor([0]), CLUSTERS_OF_PROXIES, 50), logits
    )
    assert gradient[0, 0] == 0
    assert (gradient[0, 1:3] < 0).all()
    assert (gradient[0, 3:] > 0).all()
    changed = logits.clone()
    changed[0, 0] = 100.0
    assert camera_contrast(changed, torch.tensor([0]), CLUSTERS_OF_PROXIES, 50) == value


@pytest.mark.parametrize(
    ("own", "clusters"),
    [([3, 3, -1], [0, 1, 2, 3]), ([0, 2, 1], [0, 0, 0, 0])],
    ids=["no other camera", "no other cluster"],
)
def test_without_another_camera_or_another_cluster_there_is_exactly_nothing_to_learn(own, clusters):
    assert_zero_with_zero_gradients(
        lambda logits: camera_contrast(logits, torch.tensor(own), torch.tensor(clusters), 50),
        random_tensor((3, 4), 0, torch.float32),
    )
