"""What a round does with clusters that cannot train anything."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from clustering import jaccard
from clustering.dbscan import OUTLIER, Clustering
from clustering.labelling import Labelling, label_images
from models.modality import Modality, PerModality
from pipeline.config.labelling import ClusteringConfig, LabellingConfig
from pipeline.errors import DegenerateClustering, TrainingError, VireidError
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.clusters import label_modality, usable_labels


def labelling(labels: list[int], **changes: object) -> Labelling:
    array = np.array(labels, dtype=np.int64)
    pseudo = Clustering(labels=array, core=array != OUTLIER)
    plain = Labelling(
        clustering=pseudo,
        num_edges=0,
        curve=(),
        distance_quantiles=None,
        max_in_degree=1,
        k1=30,
        k2=6,
        seconds={},
        ranks=np.arange(len(array), dtype=np.int32)[:, None],
    )
    return replace(plain, **changes)


CPU = torch.device("cpu")
GOOD = labelling([0, 0, 1, 1, 2, 2, 3, 3, OUTLIER])
NOTHING = labelling([OUTLIER] * 9, distance_quantiles={"p01": 0.71, "p05": 0.8, "p50": 0.95})


@pytest.mark.parametrize(
    ("value", "limit", "error", "said", "hint"),
    [
        (1.0, 10, DegenerateClustering, "infrared images: eps 0.6 has", "labelling.infrared.eps"),
        (np.nan, 2**31, TrainingError, "infrared images cannot be clustered on cpu", "execution.device"),
    ],
)
def test_what_clustering_refuses_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, value: float, limit: int, error: type[VireidError], said: str, hint: str
) -> None:
    monkeypatch.setattr(jaccard, "MOST_PAIRS", limit)
    bank = FeatureBank(np.full((40, 1), value, np.float32), Modality.INFRARED)
    with pytest.raises(error) as caught:
        label_modality(bank, ClusteringConfig(), CPU)
    assert said in caught.value.message and hint in caught.value.hint


def test_labels_with_clusters_are_taken_as_they_are() -> None:
    found = usable_labels(PerModality(GOOD, GOOD), None, LabellingConfig(max_largest_share=0.5), 4)
    assert found.visible is GOOD and found.infrared is GOOD


def test_without_a_cluster_the_last_usable_labels_of_that_modality_go_on(caplog: pytest.LogCaptureFixture) -> None:
    previous = PerModality(GOOD.clustering, labelling([0] * 9).clustering)
    with caplog.at_level(logging.WARNING):
        found = usable_labels(PerModality(GOOD, NOTHING), previous, LabellingConfig(), 4)
    assert found.visible is GOOD
    assert found.infrared.clustering is previous.infrared
    assert "no cluster among 9 infrared images" in caplog.text


def test_without_a_cluster_in_the_first_round_the_error_names_what_to_turn() -> None:
    with pytest.raises(DegenerateClustering) as caught:
        usable_labels(PerModality(NOTHING, GOOD), None, LabellingConfig(), 4)
    message, hint = caught.value.message, caught.value.hint
    assert "9 visible images" in message and "eps 0.6" in message and "k1 30" in message
    assert "p05: 0.800" in message
    assert "labelling.visible.eps" in hint


def test_without_a_cluster_a_strict_setting_ends_the_run_even_with_earlier_labels() -> None:
    settings = LabellingConfig(on_no_clusters="error")
    with pytest.raises(DegenerateClustering):
        usable_labels(PerModality(NOTHING, GOOD), PerModality(GOOD.clustering, GOOD.clustering), settings, 4)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (labelling([0] * 9), "a single visible cluster"),
        (labelling([0, 0, 1, 1, 2, 2, OUTLIER, OUTLIER, OUTLIER]), "3 visible clusters, fewer than the 4"),
        (labelling([0] + [OUTLIER] * 99), "99% of the visible images are outliers"),
        (labelling([0, 0, 0, 1, 2, 3, 4, 5, 6]), "one cluster holds 33%"),
        (replace(GOOD, k1=9, k2=6), "k1 9 and k2 6 are used instead of 30 and 6"),
        (replace(GOOD, max_in_degree=601), "neighbour of 601 others"),
    ],
)
def test_what_looks_wrong_is_a_warning_with_figures(
    case: Labelling, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        usable_labels(PerModality(case, GOOD), None, LabellingConfig(), 4)
    assert words in caplog.text


def test_fewer_images_than_k1_are_clustered_with_what_there_is() -> None:
    corners = np.repeat(np.eye(2, 4, dtype=np.float32), 5, axis=0)
    bank = FeatureBank(vectors=corners, modality=Modality.VISIBLE)
    found = label_modality(bank, ClusteringConfig(k1=30, k2=2, min_samples=2), CPU)
    assert found.k1 == 10
    assert found.clustering.num_clusters == 1 or found.clustering.labels.tolist() == [0] * 5 + [1] * 5


def test_the_settings_are_the_clustering_functions_own_defaults() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    bank = FeatureBank(vectors=rows, modality=Modality.INFRARED)
    assert np.array_equal(
        label_modality(bank, ClusteringConfig(), CPU).clustering.labels, label_images(rows).clustering.labels
    )
