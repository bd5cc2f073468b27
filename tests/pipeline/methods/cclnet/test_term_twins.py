"""Terms of the switches against their written-out twins in float64, in value and gradient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.encoder import Encoded, Head
from models.memory import PrototypeMemory
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from pipeline.methods.cclnet.contrast import HardPrototypes, distillation_term, own_contrast, unit_necks, with_hardest
from pipeline.methods.cclnet.objective import TextLoss, cross_text_term
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.training.objective import Batch, Term
from tests.pipeline.training.small_training import CPU, unit_rows
from tests.reference import losses

CLUSTERS, WIDTH, TEMPERATURE = PerModality(4, 3), 6, 0.2
LABELS = PerModality(np.array([0, 0, 1, 2, 3, -1, 1]), np.array([1, 0, -1, 2]))
POSITIONS = PerModality(np.array([0, 2, 3, 4, 6]), np.array([0, 1, 3]))


def step(head: Head, seed: int = 1, views: int = 1) -> Batch:
    """Random features of one head in float64, with gradients; visible images have `views` views."""
    generator = torch.Generator().manual_seed(seed)
    positions = PerModality(np.tile(POSITIONS.visible, views), POSITIONS.infrared)

    def encoded(at: np.ndarray) -> Encoded:
        rows = torch.randn(len(at), WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
        return Encoded(**({one.value: None for one in Head} | {head.value: rows}))

    return Batch(positions.map(encoded), positions.map(torch.from_numpy), positions, PerModality(views, 1))


def memories(seed: int) -> PerModality[PrototypeMemory]:
    return CLUSTERS.map(lambda count: PrototypeMemory(unit_rows(count, WIDTH, seed=seed + count, dtype=torch.float64)))


def assert_same(term: Term, batch: Batch, rows: Tensor, expected: Tensor) -> None:
    """The value and the gradient for `rows` are those that are expected."""
    value = term.loss(batch)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected.item(), rel=0, abs=1e-9)
    (wanted,) = torch.autograd.grad(expected, rows)
    (found,) = torch.autograd.grad(value, rows)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert found.abs().sum() > 0


@pytest.mark.parametrize("modality", Modality)
@pytest.mark.parametrize("margin", [0.0, 0.2, 1e3])
def test_hard_prototypes_equal_their_twin(modality: Modality, margin: float) -> None:
    batch, own, hardest = step(Head.NECK), memories(1), memories(2)
    labels, rows = LABELS[modality], batch.rows(Head.NECK)[modality]
    plain = own_contrast(modality, own[modality], labels, TEMPERATURE)
    term = with_hardest(plain, modality, HardPrototypes(hardest, 0.1, margin), labels, TEMPERATURE)
    unit, at = rows / rows.norm(dim=1, keepdim=True), torch.from_numpy(labels[POSITIONS[modality]])
    banks = own[modality].prototypes, hardest[modality].prototypes
    expected = losses.hard_prototype_contrast(unit, *banks, at, TEMPERATURE, margin)
    assert_same(term, batch, rows, expected)


def texts() -> PerModality[TextPrototypes]:
    """Visible cluster 2 has no partner; the confidences of pairs differ."""
    partners = PerModality(np.array([1, 0, -1, 2]), np.array([1, 0, 3]))
    certain = PerModality(np.array([0.25, 1, 0, 0.5], np.float32), np.array([1, 0.25, 0.5], np.float32))

    def made(modality: Modality) -> TextPrototypes:
        count = CLUSTERS[modality]
        rows = 3 * unit_rows(count, WIDTH, seed=7 + count, dtype=torch.float64)
        return TextPrototypes(rows, LABELS[modality], torch.zeros(count, 1, 1), partners[modality], certain[modality])

    return PerModality.build(made)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [None, 5.0])
@pytest.mark.parametrize("modality", Modality)
def test_cross_texts_equal_their_twin(modality: Modality, scale: float | None, weighted: bool) -> None:
    batch, known = step(Head.PROJECTION), texts()
    term = cross_text_term(modality, TextLoss(known, 1.0, 0.1, scale, 0.5, weighted), CPU)
    rows, clusters = batch.rows(Head.PROJECTION)[modality], LABELS[modality][POSITIONS[modality]]
    partners, certain = known[modality].partners[clusters], known[modality].confidence[clusters]
    weights = torch.from_numpy(certain if weighted else np.ones_like(certain)).double()
    other = known[modality.other].features
    expected = losses.cross_text(rows, other, torch.from_numpy(partners), weights, 0.1, scale)
    assert_same(term, batch, rows, expected)


def test_images_without_a_partner_have_no_gradient_and_do_not_count() -> None:
    batch = step(Head.PROJECTION)
    term = cross_text_term(Modality.VISIBLE, TextLoss(texts(), 1.0, 0.1, None, 0.5, True), CPU)
    rows = batch.rows(Head.PROJECTION).visible
    (gradient,) = torch.autograd.grad(term.loss(batch), rows)
    alone = LABELS.visible[POSITIONS.visible] == 2
    assert alone.sum() == 1
    assert (gradient[alone] == 0).all() and (gradient[~alone] != 0).any(dim=1).all()


def test_distillation_equals_its_twin() -> None:
    batch, banks = step(Head.NECK, views=2), memories(1)
    rows = batch.rows(Head.NECK).visible
    first, second = (rows / rows.norm(dim=1, keepdim=True)).split(len(POSITIONS.visible))
    prototypes = torch.cat([memory.prototypes for memory in banks])
    expected = losses.distillation(first, second, prototypes, TEMPERATURE)
    assert_same(distillation_term(banks, 1.0, TEMPERATURE), batch, rows, expected)


def test_the_teacher_of_distillation_has_no_gradient() -> None:
    batch, banks = step(Head.NECK, views=2), memories(1)
    images = len(POSITIONS.visible)
    (found,) = torch.autograd.grad(
        distillation_term(banks, 1.0, TEMPERATURE).loss(batch), batch.rows(Head.NECK).visible
    )
    # The first view moves as the student of the second one alone, which is a constant.
    student = batch.rows(Head.NECK).visible[:images].detach().requires_grad_()
    teacher = unit_necks(batch).visible[images:].detach()
    bank = torch.cat([memory.prototypes for memory in banks]).T / TEMPERATURE
    wanted, scores = torch.softmax(2 * teacher @ bank, 1), torch.log_softmax(normalise_rows(student) @ bank, 1)
    (expected,) = torch.autograd.grad(-0.5 * (wanted * scores).sum(dim=1).mean(), student)
    torch.testing.assert_close(found[:images], expected, rtol=0, atol=1e-9)
    assert all(not memory.prototypes.requires_grad for memory in banks)
