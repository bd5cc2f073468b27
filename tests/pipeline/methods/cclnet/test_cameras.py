"""Camera proxies: an image is pulled to its cluster's images of other cameras, and nothing else changes."""

import logging

import numpy as np
import pytest
import torch

from models.encoder import Encoded, Head
from models.memory import PrototypeMemory, memory_update
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from models.swap import CrossModalSwap
from pipeline.config.cclnet import CclnetConfig, MemoryConfig
from pipeline.config.experiment import digest_of, marks_of, record_of
from pipeline.config.labelling import MatchingConfig
from pipeline.config.presets import load_config
from pipeline.data.images import TrainingImages
from pipeline.methods.cclnet.cameras import camera_contrasts, split_by_camera, warn_of_single_cameras
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.contrast import CrossModal, HardPrototypes, partners_of
from pipeline.methods.cclnet.objective import cluster_objective
from pipeline.training.objective import Batch, Objective
from tests.pipeline.methods.cclnet.test_switches import CPU, WIDTH, found, vectors
from tests.reference import losses, memory

PROXIES = load_config("smoke", ("memory.cameras=proxies", "memory.camera_negatives=3"))
assert isinstance(PROXIES, CclnetConfig)


def images_of(visible: int, infrared: int) -> PerModality[TrainingImages]:
    """Images of a modality are of this number of cameras, in turn."""

    def images(modality: Modality, count: int) -> TrainingImages:
        rows = np.arange(len(vectors()[modality]))
        return TrainingImages(np.zeros((len(rows), 1, 1, 3), np.uint8), rows, 3 + rows % count, modality)

    return PerModality(images(Modality.VISIBLE, visible), images(Modality.INFRARED, infrared))


def clusters_of(visible: int, infrared: int) -> Clusters:
    return split_by_camera(found(MatchingConfig()), vectors(), images_of(visible, infrared), PROXIES.memory)


def step_of(clusters: Clusters) -> Batch:
    """Every third image that has a cluster, with random features."""
    generator = torch.Generator().manual_seed(1)
    positions = clusters.labels.map(lambda labels: np.flatnonzero(labels >= 0)[::3])
    necks = positions.map(lambda at: torch.randn(len(at), WIDTH, generator=generator).requires_grad_())
    encoded = necks.map(lambda rows: Encoded(rows, None, None))
    return Batch(encoded, positions.map(torch.from_numpy), positions, PerModality(1, 1))


def objective_of(clusters: Clusters, switch: str = "none") -> Objective:
    def memories() -> PerModality[PrototypeMemory]:
        return clusters.prototypes.map(lambda rows: PrototypeMemory(torch.from_numpy(rows)))

    unified = CrossModal(partners_of(clusters, 0.05, weighted=False), "unified")
    return cluster_objective(
        clusters.labels,
        memories(),
        temperature=0.05,
        update=memory_update("momentum", 0.1),
        swap=CrossModalSwap(min_similarity=-1.0) if switch == "swap" else None,
        cross_modal=unified if switch == "unified" else None,
        hard=HardPrototypes(memories(), 0.1, 0.2) if switch == "hard" else None,
        cameras=camera_contrasts(clusters, PROXIES.memory, CPU),
    )


@pytest.mark.parametrize("modality", Modality)
def test_the_term_is_that_of_its_twin_in_value_and_gradient(modality: Modality) -> None:
    clusters = clusters_of(3, 2)
    step, proxies = step_of(clusters), clusters.proxies[modality]
    cameras = PerModality(3, 2)[modality]
    assert proxies is not None and len(proxies.prototypes) == cameras * len(clusters.prototypes[modality])
    contrast = {one.modality: one for one in camera_contrasts(clusters, PROXIES.memory, CPU)}[modality]
    term = contrast.term(0.05)
    assert (term.name, term.weight) == (f"{modality}_cameras", 0.5)
    value = term.loss(step)
    value.backward()
    rows = step.rows(Head.NECK)[modality].detach().double().requires_grad_()
    logits = normalise_rows(rows) @ torch.from_numpy(proxies.prototypes).double().T / 0.05
    own = torch.from_numpy(proxies.of_images[step.host_positions[modality]])
    expected = losses.camera_contrast(logits, own, torch.from_numpy(proxies.clusters), 3)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    gradient = step.rows(Head.NECK)[modality].grad
    assert gradient is not None and rows.grad is not None
    torch.testing.assert_close(gradient.double(), rows.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("switch", ["none", "unified", "hard", "swap"])
def test_the_terms_join_other_switches_and_proxies_follow_the_images_of_their_camera(switch: str) -> None:
    clusters = clusters_of(3, 2)
    step, objective = step_of(clusters), objective_of(clusters, switch)
    alone = objective_of(found(MatchingConfig()), switch).losses(step)
    together = objective.losses(step)
    assert set(together) - set(alone) == {"visible_cameras", "infrared_cameras"}
    assert all(torch.equal(together[name], alone[name]) for name in alone if name != "total")
    objective.updates.settle()
    objective.updates.after_step(step)
    for contrast in objective.updates.cameras:  # type: ignore[attr-defined]
        own = torch.from_numpy(contrast.proxies.of_images[step.host_positions[contrast.modality]])
        features = normalise_rows(step.rows(Head.NECK)[contrast.modality]).detach()
        expected = memory.updated(torch.from_numpy(contrast.proxies.prototypes), features, own, 0.1)
        torch.testing.assert_close(contrast.memory.prototypes, expected, rtol=0, atol=1e-6)


def test_one_camera_a_modality_leaves_the_losses_bit_equal() -> None:
    single = clusters_of(1, 1)
    step = step_of(single)
    losses_of = objective_of(single).losses(step)
    base = objective_of(found(MatchingConfig())).losses(step)
    assert list(losses_of) == list(base)
    assert all(torch.equal(losses_of[name], base[name]) for name in base)
    assert list(objective_of(clusters_of(3, 1)).losses(step))[2:] == ["visible_cameras", "total"]


@pytest.mark.parametrize(
    ("cameras", "line"),
    [
        ((1, 1), "changes nothing: the visible and the infrared images are of one camera"),
        ((3, 1), "changes nothing for infrared images: the infrared images are of one camera"),
        ((3, 2), ""),
    ],
)
def test_a_line_says_where_the_switch_changes_nothing(
    caplog: pytest.LogCaptureFixture, cameras: tuple[int, int], line: str
) -> None:
    with caplog.at_level(logging.INFO):
        warn_of_single_cameras(images_of(*cameras), PROXIES.memory)
        warn_of_single_cameras(images_of(*cameras), MemoryConfig())  # off: no line
    assert caplog.messages == ([f'memory.cameras = "proxies" {line}'] if line else [])


def test_the_switch_changes_the_digest_and_marks_the_run() -> None:
    base = load_config("smoke")
    assert marks_of(record_of(base)) == ()
    assert marks_of(record_of(PROXIES)) == ("cameras used",)
    assert digest_of(PROXIES) != digest_of(base)
    assert digest_of(load_config("smoke", ("memory.cameras=ignored", "memory.camera_negatives=50"))) == digest_of(base)
