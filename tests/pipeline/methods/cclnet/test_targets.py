"""Soft targets, and outliers that join a cluster."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clustering.dbscan import OUTLIER, Clustering
from clustering.labelling import label_images
from clustering.neighbour_votes import soft_labels
from models.encoder import Encoded
from models.losses import prototype_contrast, share_contrast
from models.memory import PrototypeMemory
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from pipeline.config.labelling import LabellingConfig, MatchingConfig
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError
from pipeline.methods.cclnet.clusters import Clusters, match_found
from pipeline.methods.cclnet.contrast import own_contrast
from pipeline.methods.cclnet.finding import with_targets
from pipeline.methods.cclnet.targets import hard_targets, soft_targets
from pipeline.training.objective import Batch
from tests.reference.feature_sets import identity_features

ROWS = identity_features(60, 5, 16)
VECTORS = PerModality(ROWS[:36], ROWS[36:])


def found() -> Clusters:
    """Clusters of both modalities; the first visible image is an outlier."""
    labellings = VECTORS.map(lambda rows: label_images(rows, k1=8, k2=3, eps=0.6))
    labels, core = labellings.visible.clustering.labels.copy(), labellings.visible.clustering.core.copy()
    labels[0], core[0] = OUTLIER, False
    visible = replace(labellings.visible, clustering=Clustering(labels, core))
    return match_found(VECTORS, PerModality(visible, labellings.infrared), MatchingConfig())


def test_by_default_there_are_no_targets() -> None:
    clusters = found()
    assert with_targets(clusters, VECTORS, LabellingConfig()) is clusters


def test_an_outlier_joins_with_half_a_weight_and_leaves_prototypes_and_pairs() -> None:
    clusters = found()
    joined = with_targets(clusters, VECTORS, LabellingConfig(outliers="assign"))
    assert joined.prototypes is clusters.prototypes and joined.matching is clusters.matching
    assert joined.targets is not None
    for modality, before in clusters.labels.items():
        after, targets = joined.labels[modality], joined.targets[modality]
        new = (before == OUTLIER) & (after != OUTLIER)
        assert np.array_equal(after[~new], before[~new])
        weights = np.where(new, 0.5, np.where(after == OUTLIER, 0.0, 1.0))
        assert np.array_equal(targets.shares.sum(axis=1), weights.astype(np.float32))


def test_soft_targets_are_those_of_the_neighbour_lists() -> None:
    clusters = found()
    softened = with_targets(clusters, VECTORS, LabellingConfig(soft="neighbours", soft_neighbours=5))
    assert softened.targets is not None
    labels = clusters.labels.visible
    expected = soft_labels(clusters.found.visible.ranks[:, :5], labels, labels)
    dense = np.zeros(expected.targets.shape)
    targets = softened.targets.visible
    np.add.at(dense, (np.arange(len(labels))[:, None], targets.clusters), targets.shares)
    np.testing.assert_allclose(dense, expected.targets.toarray() * expected.weights[:, None], atol=1e-6)
    assert not targets.shares[0].any()  # the outlier


def step() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = PerModality(torch.tensor([1, 7, 20]), torch.tensor([0, 1]))
    necks = images.map(lambda at: torch.randn(len(at), 16, generator=generator))
    return Batch(
        necks.map(lambda rows: Encoded(rows, None, None)), images, images.map(lambda at: at.numpy()), PerModality(1, 1)
    )  # fmt: skip


def test_the_contrast_uses_soft_targets() -> None:
    clusters, batch = found(), step()
    softened = with_targets(clusters, VECTORS, LabellingConfig(soft="neighbours", soft_neighbours=5))
    assert softened.targets is not None
    memory = PrototypeMemory(torch.from_numpy(clusters.prototypes.visible))
    labels, targets = clusters.labels.visible, softened.targets.visible
    at = batch.host_positions.visible
    logits = memory.logits(normalise_rows(batch.encoded.visible.neck), 0.05)
    plain = own_contrast(Modality.VISIBLE, memory, labels, 0.05).loss(batch)
    soft = own_contrast(Modality.VISIBLE, memory, labels, 0.05, targets).loss(batch)
    assert torch.equal(plain, prototype_contrast(logits, torch.from_numpy(labels[at])))
    expected = share_contrast(logits, torch.from_numpy(targets.clusters[at]), torch.from_numpy(targets.shares[at]))
    assert torch.equal(soft, expected) and not torch.equal(soft, plain)


def test_padding_has_no_share() -> None:
    # Image 0 has neighbours in both clusters, image 1 in its own only.
    labels = np.array([0, 1, 1])
    targets = soft_targets(soft_labels(np.array([[0, 1], [1, 2], [2, 1]], np.int32), labels, labels))
    assert targets.clusters.shape == (3, 2)
    assert (targets.shares[0] > 0).all() and targets.shares[1].tolist() == [1.0, 0.0]
    assert hard_targets(np.array([2, OUTLIER])).shares.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("labelling.soft=neighbours",), "soft_neighbours is 30, more than the smaller labelling k1 = 10"),
        (("labelling.soft=neighbours", "labelling.soft_neighbours=5", "labelling.space=joint_balanced",
          "swap.mode=off"), "choose one"),
        (("labelling.subset=0.5",), "labelling.subset needs labelling.space"),
    ],
)  # fmt: skip
def test_settings_that_exclude_each_other_are_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("demo", changes)
