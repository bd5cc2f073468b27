"""Partners of clusters, and the terms that contrast images with both memories."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from clustering.matching import Matching, mutual_nearest
from clustering.partners import DirectedMatching, directed, find_partners
from models.encoder import Encoded, Head
from models.losses import prototype_contrast, text_classification
from models.memory import PrototypeMemory
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.contrast import (
    CrossModal,
    HardPrototypes,
    contrast_term,
    distillation_term,
    own_contrast,
    partners_of,
    with_hardest,
)
from pipeline.methods.cclnet.objective import TextLoss, cross_text_term, text_term
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.training.objective import Batch

ROWS = np.eye(4, dtype=np.float32)
VISIBLE = ROWS[[0, 1, 2]]
INFRARED = np.stack([ROWS[1], ROWS[0] * 0.8 + ROWS[3] * 0.6])
LABELS = PerModality(np.array([0, 0, 1, 2, -1]), np.array([1, 0, -1]))


def clusters() -> Clusters:
    """Visible 0 and infrared 1 are a pair, visible 1 and infrared 0 too; visible 2 has no partner."""
    similarity = VISIBLE @ INFRARED.T
    rows, columns = mutual_nearest(similarity)
    matching = Matching(rows[:2], columns[:2], similarity[rows[:2], columns[:2]])
    return made_of(VISIBLE, INFRARED, matching)


def made_of(
    visible: np.ndarray, infrared: np.ndarray, matching: Matching, partners: DirectedMatching | None = None
) -> Clusters:
    partners = partners or directed(matching, len(visible), len(infrared))
    nothing, prototypes = PerModality(None, None), PerModality(visible, infrared)
    return Clusters(nothing, prototypes, visible @ infrared.T, matching, mutual_nearest, partners)  # type: ignore[arg-type]


def test_partners_are_those_of_the_pairs_in_both_directions() -> None:
    visible, infrared = partners_of(clusters(), 0.05, weighted=False)
    assert visible.partner.tolist() == [1, 0, -1]
    assert infrared.partner.tolist() == [1, 0]
    assert visible.excluded.tolist() == [[-1], [-1], [3]]  # of equally similar infrared ones the first
    assert infrared.excluded.size == 0
    assert visible.confidence.tolist() == [1.0, 1.0, 0.0]


def test_clusters_of_one_partner_are_no_negatives() -> None:
    similarity = np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.7]], np.float32)
    partners = find_partners(similarity, method="progressive")
    found = made_of(similarity, np.eye(3, dtype=np.float32), partners.agreed(), partners)
    visible, infrared = partners_of(found, 0.05, weighted=False)
    assert visible.partner.tolist() == [0, 2]
    assert infrared.partner.tolist() == [0, 0, 1]
    assert visible.excluded.tolist() == [[2 + 1], [-1]]  # infrared 1 has visible 0 as its partner, which has infrared 0
    assert infrared.excluded.tolist() == [[1], [0], [-1]]  # infrared 0 and 1 have one partner
    assert visible.confidence.tolist() == [1, 1] and infrared.confidence.tolist() == [1, 1, 1]
    doubted_visible, doubted_infrared = partners_of(found, 0.05, weighted=True)
    assert doubted_visible.confidence[0] == pytest.approx(math.tanh(0.8 / 0.1), abs=1e-3)
    assert doubted_infrared.confidence[1] == pytest.approx(
        math.sqrt(math.tanh(0.7 / 0.1) * math.tanh(0.6 / 0.1)), abs=1e-3
    )


def test_the_names_of_the_modalities_do_not_matter() -> None:
    here = clusters()
    matching = here.matching
    back = Matching(matching.infrared[::-1].copy(), matching.visible[::-1].copy(), matching.similarity[::-1].copy())
    there = made_of(INFRARED, VISIBLE, back)
    visible, infrared = partners_of(here, 0.05, weighted=True)
    other_infrared, other_visible = partners_of(there, 0.05, weighted=True)
    for one, two in ((visible, other_visible), (infrared, other_infrared)):
        assert np.array_equal(one.partner, two.partner)
        assert np.array_equal(one.excluded, two.excluded)
        assert np.allclose(one.confidence, two.confidence)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = PerModality(torch.tensor([0, 2, 3]), torch.tensor([0, 1]))
    necks = images.map(lambda at: torch.randn(len(at), 4, generator=generator))
    return Batch(
        necks.map(lambda rows: Encoded(rows, None, None)), images, images.map(lambda at: at.numpy()),
        PerModality(1, 1),
    )  # fmt: skip


def memories() -> PerModality[PrototypeMemory]:
    return PerModality(VISIBLE, INFRARED).map(lambda rows: PrototypeMemory(torch.from_numpy(rows)))


@pytest.mark.parametrize("modality", Modality)
def test_cross_adds_the_contrast_with_the_partner(modality: Modality) -> None:
    banks, found, step = memories(), partners_of(clusters(), 0.05, weighted=False), batch()
    term = contrast_term(modality, banks, LABELS[modality], CrossModal(found, "cross", 0.25), 0.05)
    own = own_contrast(modality, banks[modality], LABELS[modality], 0.05)
    partner = torch.from_numpy(found[modality].partner[LABELS[modality]])
    rows = normalise_rows(step.rows(Head.NECK)[modality])
    across = prototype_contrast(banks[modality.other].logits(rows, 0.05), partner[step.positions[modality]])
    assert torch.allclose(term.loss(step), own.loss(step) + 0.25 * across)
    assert term.name == f"{modality}_cross"


@pytest.mark.parametrize("modality", Modality)
def test_unified_contrast_has_a_gradient_towards_the_partner(modality: Modality) -> None:
    banks, found = memories(), partners_of(clusters(), 0.05, weighted=False)
    term = contrast_term(modality, banks, LABELS[modality], CrossModal(found, "unified"), 0.5)
    step = batch()
    necks = step.encoded.map(lambda one: one.neck.requires_grad_())
    term.loss(step).backward()
    gradient = necks[modality].grad
    assert gradient is not None and torch.isfinite(gradient).all()
    partner = banks[modality.other].prototypes[
        found[modality].partner[LABELS[modality][step.host_positions[modality][0]]]
    ]
    assert (gradient[0] @ partner) < 0  # a step against the gradient raises the similarity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("loss.contrast=unified", "swap.mode=released"), "exclude each other"),
        (("loss.distillation=1", "swap.mode=off"), "needs augmentation.channel"),
        (("loss.confidence=true",), r"loss\.confidence weighs terms across modalities, and loss\.contrast"),
        (("memory.hard=true", "memory.update=hard"), "exclude each other"),
        (("prompts.shared=true", "prompts.text_weight=0"), "so that prompts.shared would change nothing"),
        (("prompts.cross_weight=0.5", "prompts.text_weight=0"), "so that prompts.cross_weight would"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=words):
        load_config("smoke", changes)


def texts_of(rows: torch.Tensor, labels: np.ndarray, partners: list[int]) -> TextPrototypes:
    weights = np.linspace(0.5, 1, len(rows), dtype=np.float32)
    return TextPrototypes(rows, labels, torch.zeros(len(rows), 1, 1), np.array(partners), weights)


def test_texts_of_the_other_modality_classify_images_of_pairs() -> None:
    generator = torch.Generator().manual_seed(2)
    texts = PerModality(
        texts_of(torch.randn(3, 4, generator=generator), LABELS.visible, [1, 0, -1]),
        texts_of(torch.randn(2, 4, generator=generator), LABELS.infrared, [1, 0]),
    )
    images = PerModality(torch.tensor([0, 2, 3]), torch.tensor([0, 2]))
    rows = images.map(lambda at: torch.randn(len(at), 4, generator=generator))
    step = Batch(
        rows.map(lambda own: Encoded(None, own, None)), images, images.map(lambda at: at.numpy()), PerModality(1, 1)
    )
    loss = TextLoss(texts, 1.0, 0.1, 20.0, 0.5)
    term = cross_text_term(Modality.VISIBLE, loss, torch.device("cpu"))
    logits = 20.0 * normalise_rows(rows.visible) @ normalise_rows(texts.infrared.features).T
    expected = text_classification(logits, torch.tensor([1, 0, -1]), 0.1)  # the third image has no partner
    assert torch.allclose(term.loss(step), expected)
    assert (term.name, term.weight) == ("visible_cross_text", 0.5)
    own = text_term(Modality.INFRARED, loss, torch.device("cpu"))
    logits = 20.0 * normalise_rows(rows.infrared) @ normalise_rows(texts.infrared.features).T
    assert torch.allclose(own.loss(step), text_classification(logits, torch.tensor([1, -1]), 0.1))


def two_views() -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = PerModality(torch.tensor([0, 2, 0, 2]), torch.tensor([0, 1]))
    rows = images.map(lambda at: torch.randn(len(at), 4, generator=generator).requires_grad_())
    return Batch(
        rows.map(lambda own: Encoded(own, None, None)), images, images.map(lambda at: at.numpy()), PerModality(2, 1)
    )


def test_distillation_is_the_divergence_of_the_views() -> None:
    step, banks = two_views(), memories()
    term = distillation_term(banks, 0.5, 0.5)
    value = term.loss(step)
    rows = normalise_rows(step.rows(Head.NECK).visible).detach().double()
    bank = torch.cat([memory.prototypes for memory in banks]).double()
    expected = 0.0
    for student, teacher in ((rows[:2], rows[2:]), (rows[2:], rows[:2])):
        right = torch.softmax(teacher @ bank.T / 0.25, dim=1)
        found = torch.softmax(student @ bank.T / 0.5, dim=1)
        expected += 0.5 * (right * (right.log() - found.log())).sum(dim=1).mean()
    assert value.item() == pytest.approx(float(expected), abs=1e-5)
    value.backward()
    assert step.rows(Head.NECK).visible.grad is not None


def test_equal_views_with_one_temperature_have_nothing_to_learn() -> None:
    same = torch.zeros(4, 4) + torch.tensor([1.0, 2.0, 3.0, 4.0])  # as similar to every prototype of one row
    images = PerModality(torch.tensor([0, 2, 0, 2]), torch.tensor([0]))
    step = Batch(
        PerModality(Encoded(same, None, None), Encoded(same[:1], None, None)), images,
        images.map(lambda at: at.numpy()),
        PerModality(2, 1),
    )  # fmt: skip
    one = PrototypeMemory(torch.eye(4)[:1])
    assert distillation_term(PerModality(one, one), 1.0, 0.05).loss(step).item() == pytest.approx(0.0, abs=1e-6)


def test_hard_prototypes_halve_what_exceeds_the_margin() -> None:
    banks, step = memories(), batch()
    other = PerModality(VISIBLE[::-1].copy(), INFRARED[::-1].copy()).map(
        lambda rows: PrototypeMemory(torch.from_numpy(rows))
    )
    term = own_contrast(Modality.VISIBLE, banks.visible, LABELS.visible, 0.05)
    hardest = own_contrast(Modality.VISIBLE, other.visible, LABELS.visible, 0.05)
    for margin in (0.2, 1e3):
        found = with_hardest(term, Modality.VISIBLE, HardPrototypes(other, 0.1, margin), LABELS.visible, 0.05)
        expected = 0.5 * (torch.relu(term.loss(step) - margin) + hardest.loss(step))
        assert torch.allclose(found.loss(step), expected)
