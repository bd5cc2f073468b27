"""Losses on images and captions against their written-out twins, in value and gradient, and where hands can work."""

import math

import pytest
import torch

from models.caption_losses import (
    caption_association,
    caption_contrast,
    caption_gap,
    cosine_similarities,
    feature_distillation,
    relation_distillation,
)
from models.losses import text_contrast
from models.modality import PerModality
from tests.reference import caption_losses as reference

# Three people with two images each, in both modalities.
LABELS = torch.tensor([4, 4, 0, 0, 9, 9])
KINDS = ["euclid", "one_minus_cos"]


def rows(seed, count=6, width=5):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def four_sides():
    """Visible images, infrared images, visible texts, infrared texts."""
    return [rows(seed) for seed in range(4)]


def paired(loss):
    """A loss of images and texts as one of the four sides."""
    return lambda a, b, c, d: loss(PerModality(a, b), PerModality(c, d))


def value_and_gradients(loss, *inputs):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    zeros = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, gradients, strict=True)]
    return value.detach(), zeros


def assert_same(fast, slow, *inputs):
    value, gradients = value_and_gradients(fast, *inputs)
    expected, expected_gradients = value_and_gradients(slow, *inputs)
    assert torch.allclose(value, expected, atol=1e-10, rtol=0)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(gradient, other, atol=1e-9, rtol=0)


def contrast(images, texts, labels=LABELS, temperature=0.05, similarity="cosine", target="identity"):
    return caption_contrast(images, texts, labels, temperature=temperature, similarity=similarity, target=target)


def gap(images, texts, labels=LABELS, distance="euclid", detach="none"):
    return caption_gap(images, texts, labels, distance=distance, detach=detach)


@pytest.mark.parametrize("similarity", ["cosine", "raw"])
@pytest.mark.parametrize("target", ["identity", "instance"])
def test_contrast_equals_its_twin(similarity, target):
    assert_same(
        paired(lambda images, texts: contrast(images, texts, LABELS, 0.07, similarity, target)),
        paired(lambda images, texts: reference.contrast([*images], [*texts], LABELS, 0.07, similarity, target)),
        *four_sides(),
    )


@pytest.mark.parametrize("distance", KINDS)
@pytest.mark.parametrize("detach", ["none", "intra"])
def test_the_gap_equals_its_twin(distance, detach):
    assert_same(
        paired(lambda images, texts: gap(images, texts, LABELS, distance, detach)),
        paired(lambda images, texts: reference.gap([*images], [*texts], LABELS, distance, detach)),
        *four_sides(),
    )


def test_association_equals_its_twin():
    assert_same(
        paired(lambda images, texts: caption_association(images, texts, 2)),
        paired(lambda images, texts: reference.association([*images], [*texts], LABELS)),
        *four_sides(),
    )


def test_distillation_of_features_equals_its_twin():
    assert_same(lambda a, b: feature_distillation(a, b, detach=False), reference.feature_distillation, rows(0), rows(1))


@pytest.mark.parametrize("taught", [[True] * 6, [True, True, False, False, True, True]])
def test_distillation_of_relations_equals_its_twin(taught):
    assert_same(
        lambda a, b, c, d: relation_distillation(
            cosine_similarities(a, b), cosine_similarities(c, d), torch.tensor(taught), detach=False
        ),
        lambda a, b, c, d: reference.relation_distillation([a, b], [c, d], taught),
        *four_sides(),
    )


@pytest.mark.parametrize(
    ("loss", "tolerance"),
    [
        (contrast, 1e-4),
        (gap, 1e-4),
        (lambda images, texts: gap(images, texts, distance="one_minus_cos"), 1e-4),
        (lambda images, texts: caption_association(images, texts, 2), 1e-4),
    ],
    ids=["contrast", "gap", "gap of cosines", "association"],
)
def test_float32_is_exact_enough_at_the_width_of_clip(loss, tolerance):
    exact = PerModality(rows(0, width=1024), rows(1, width=1024)), PerModality(rows(2, width=1024), rows(3, width=1024))
    rounded = [side.map(torch.Tensor.float) for side in exact]
    assert loss(*rounded).item() == pytest.approx(loss(*exact).item(), rel=tolerance)


class TestContrast:
    def test_equal_features_give_the_logarithm_of_the_batch_for_each_modality(self):
        # All six similarities are equal: each direction gives log 6, half of both log 6, and there are two modalities.
        same = PerModality(torch.ones(6, 3), torch.ones(6, 3))
        for target in ("identity", "instance"):
            assert contrast(same, same, target=target).item() == pytest.approx(2 * math.log(6), rel=1e-6)

    def test_a_constant_caption_tells_images_nothing(self):
        # Every row of similarities is constant: log 6 less nothing, and no image can lower it.
        captions = rows(5, count=1).expand(6, -1)
        value, (gradient, _) = value_and_gradients(
            lambda a, b: text_contrast(a, b, LABELS, LABELS, temperature=0.05), rows(0), captions
        )
        assert value.item() == pytest.approx(math.log(6), abs=1e-12)
        assert gradient.abs().max() < 1e-12

    def test_with_a_constant_caption_only_the_direction_from_texts_to_images_is_left(self):
        # All texts meet the same six cosines: log-sum-exp less their mean, as all people have equally many images.
        images, captions = PerModality(rows(0), rows(1)), rows(5, count=1).expand(6, -1)

        def expected(a, b):
            total = 0.0
            for side in (a, b):
                cosines = cosine_similarities(captions[:1], side)[0] / 0.05
                total = total + (math.log(6) + cosines.logsumexp(dim=0) - cosines.mean()) / 2
            return total

        texts = PerModality(captions, captions)
        assert_same(lambda a, b: contrast(PerModality(a, b), texts), expected, *images)

    def test_one_image_a_person_makes_identity_and_instance_the_same(self):
        sides = four_sides()
        images, texts = PerModality(*sides[:2]), PerModality(*sides[2:])
        labels = torch.tensor([3, 1, 4, 15, 9, 2])
        assert torch.equal(contrast(images, texts, labels), contrast(images, texts, labels, target="instance"))
        assert not torch.equal(contrast(images, texts), contrast(images, texts, target="instance"))

    @pytest.mark.parametrize(("similarity", "changes"), [("cosine", False), ("raw", True)])
    def test_lengths_matter_to_raw_similarities_only(self, similarity, changes):
        sides = four_sides()
        images, texts = PerModality(*sides[:2]), PerModality(*sides[2:])
        before = contrast(images, texts, similarity=similarity)
        for longer in [(images.map(lambda one: 3 * one), texts), (images, texts.map(lambda one: 3 * one))]:
            after = contrast(*longer, similarity=similarity)
            assert torch.allclose(before, after, atol=1e-12, rtol=0) != changes

    def test_raw_similarities_are_not_divided(self):
        sides = four_sides()
        images, texts = PerModality(*sides[:2]), PerModality(*sides[2:])
        found = [contrast(images, texts, temperature=t, similarity="raw") for t in (0.05, 1.0)]
        assert torch.equal(*found)

    def test_modalities_are_not_compared(self):
        # The visible half alone, twice: with equal sides each modality adds the same.
        images, texts = rows(0), rows(2)
        there = text_contrast(images, texts, LABELS, LABELS)
        back = text_contrast(texts, images, LABELS, LABELS)
        found = contrast(PerModality(images, images), PerModality(texts, texts), similarity="raw")
        assert found.item() == pytest.approx((there + back).item(), abs=1e-12)


class TestDistillation:
    @pytest.mark.parametrize(("teacher", "distance"), [([0.0, 7.0], 2.0), ([-1.0, 0.0], 4.0), ([5.0, 0.0], 0.0)])
    def test_only_directions_are_compared(self, teacher, distance):
        # Unit rows at a right angle: 1 + 1. Opposite: 2 squared. The same way: nothing.
        student = torch.tensor([[3.0, 0.0]])
        assert feature_distillation(student, torch.tensor([teacher]), detach=True).item() == pytest.approx(distance)

    def test_rows_that_were_given_back_teach_nothing(self):
        value, gradients = value_and_gradients(
            lambda a: (
                feature_distillation(a, a, detach=True)
                + relation_distillation(a @ a.T, a @ a.T, torch.ones(6, dtype=torch.bool), detach=True)
            ),
            rows(0),
        )
        assert value.item() == 0.0 and gradients[0].count_nonzero() == 0

    @pytest.mark.parametrize("detach", [True, False])
    def test_a_teacher_that_stays_as_it_is_gets_no_gradient(self, detach):
        everyone = torch.ones(6, dtype=torch.bool)
        for loss in (
            lambda a, b: feature_distillation(a, b, detach=detach),
            lambda a, b: relation_distillation(a @ a.T, b @ b.T, everyone, detach=detach),
        ):
            _, (student, teacher) = value_and_gradients(loss, rows(0), rows(1))
            assert student.abs().max() > 1e-3
            assert (teacher.count_nonzero() == 0) == detach

    def test_pairs_of_images_without_another_view_count_as_nothing(self):
        # Differences of 1 everywhere; two of three images were taught: 2 x 2 of 9 pairs are left.
        taught = torch.tensor([True, False, True])
        value, (gradient, _) = value_and_gradients(
            lambda a, b: relation_distillation(a, b, taught, detach=True), torch.ones(3, 3), torch.zeros(3, 3)
        )
        assert value.item() == pytest.approx(4 / 9)
        assert gradient.count_nonzero(dim=1).tolist() == [2, 0, 2]


class TestGapAndAssociation:
    # One person, an image of each modality, both at (1, 0); its visible text is there, too, its infrared one at (0, 1).
    IMAGES = PerModality(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    TEXTS = PerModality(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))

    @pytest.mark.parametrize(("distance", "expected"), [("euclid", 2.0), ("one_minus_cos", 1.0)])
    def test_the_gap_is_the_squared_difference_of_both_distances(self, distance, expected):
        # Distances 0 and sqrt 2 (cosines 1 and 0) in either modality: half of 2 + 2 (half of 1 + 1).
        found = gap(self.IMAGES, self.TEXTS, torch.tensor([0]), distance)
        assert found.item() == pytest.approx(expected, abs=1e-5)

    def test_association_compares_an_image_with_its_texts_and_these_with_the_others(self):
        # Visible: cosines 1 and 0, differing by 1. Infrared: 0 and 0. Half of 1 + 0.
        assert caption_association(self.IMAGES, self.TEXTS, 1).item() == pytest.approx(0.5)

    @pytest.mark.parametrize("distance", KINDS)
    def test_texts_that_do_not_tell_modalities_leave_no_gap(self, distance):
        images, texts = PerModality(rows(0), rows(1)), rows(2)
        same = PerModality(texts, texts)
        assert gap(images, same, distance=distance).item() == 0.0
        constant = same.map(lambda one: one[:1].expand(6, -1))
        assert gap(images, constant, distance=distance).item() == 0.0
        assert gap(images, PerModality(texts, rows(3)), distance=distance).item() > 1e-3

    @pytest.mark.parametrize("distance", KINDS)
    def test_the_gap_moves_images_and_texts_of_both_modalities(self, distance):
        _, gradients = value_and_gradients(
            paired(lambda images, texts: gap(images, texts, distance=distance)), *four_sides()
        )
        assert all(gradient.abs().sum(dim=1).min() > 1e-6 for gradient in gradients)

    def test_lengths_do_not_matter(self):
        sides = four_sides()
        images, texts = PerModality(*sides[:2]), PerModality(*sides[2:])
        longer = images.map(lambda one: 3 * one), texts.map(lambda one: 0.2 * one)
        for loss in (gap, lambda a, b: gap(a, b, distance="one_minus_cos"), lambda a, b: caption_association(a, b, 2)):
            assert torch.allclose(loss(images, texts), loss(*longer), atol=1e-12, rtol=0)

    def test_an_image_on_its_own_text_has_a_finite_gradient(self):
        images = PerModality(rows(0), rows(1))
        value, gradients = value_and_gradients(paired(gap), *images, *images)
        assert value.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
