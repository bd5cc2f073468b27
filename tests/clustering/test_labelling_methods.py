"""What every way to cluster promises, and what only some can."""

import numpy as np
import pytest

from clustering.dbscan import OUTLIER
from clustering.labelling import CURVE_EPS, label_images
from tests.reference.feature_sets import (
    blob_features,
    copied_features,
    gaussian_features,
    identity_features,
    untrained_features,
)

METHODS = ["dbscan", "components", "louvain"]
PEOPLE = identity_features(400, 10, 64)
SETS = {
    "people": PEOPLE,
    "no structure": gaussian_features(300, 16),
    "untrained network": untrained_features(300, 32),
    "one blob": blob_features(300, 32),
    "each image fifty times": copied_features(6, 50, 16),
    "fewer images than k1": identity_features(20, 2, 32),
    "two images": np.eye(2, dtype=np.float32),
    "one image": np.eye(1, 8, dtype=np.float32),
    "no images": np.empty((0, 8), dtype=np.float32),
}
every_method = pytest.mark.parametrize("method", METHODS)


def assert_is_labelling(found, num_images):
    labels, core = found.clustering.labels, found.clustering.core
    assert labels.shape == core.shape == (num_images,)
    numbers = set(labels.tolist()) - {OUTLIER}
    assert numbers == set(range(len(numbers))), "cluster numbers have a gap"
    assert not np.any(core & (labels == OUTLIER)), "an outlier is core"
    first = [int(np.flatnonzero(core & (labels == number))[0]) for number in sorted(numbers)]
    assert first == sorted(first), "clusters are not numbered by their smallest core image"
    assert 0.0 <= found.clustering.outlier_share <= 1.0 and 0.0 <= found.clustering.largest_share <= 1.0


@every_method
@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize("min_samples", [1, 4])
def test_labels_are_numbered_without_a_gap(features, method, min_samples):
    features.setflags(write=False)
    assert_is_labelling(label_images(features, method=method, min_samples=min_samples), len(features))


@every_method
def test_the_same_features_give_the_same_labels(method):
    first, second = (label_images(PEOPLE, method=method) for _ in range(2))
    assert np.array_equal(first.clustering.labels, second.clustering.labels)
    assert (first.num_edges, first.curve) == (second.num_edges, second.curve)


@every_method
def test_copies_are_in_one_cluster(method):
    # Twelve copies each: no image but its copies comes before the thirteenth place, and all twelve name each other.
    features = np.repeat(gaussian_features(30, 64), 12, axis=0)
    found = label_images(features, k1=12, method=method).clustering
    assert found.labels.tolist() == np.repeat(np.arange(30), 12).tolist()


@every_method
def test_clusters_hold_people(method):
    # Ten people, 40 images each: every method finds about as many clusters and few outliers.
    found = label_images(PEOPLE, method=method).clustering
    assert 9 <= found.num_clusters <= 13
    assert found.outlier_share < 0.15


@pytest.mark.parametrize("method", ["components", "louvain"])  # a border image of dbscan may go to another cluster
def test_clusters_are_as_large_as_asked(method):
    sizes = [
        np.bincount(label_images(PEOPLE, method=method, min_samples=least).clustering.labels + 1) for least in (1, 8)
    ]
    assert sizes[0][1:].min() < 8 <= sizes[1][1:].min()


@pytest.mark.parametrize("method", ["dbscan", "components"])  # louvain visits images in an order
def test_the_order_of_images_moves_neither_core_images_nor_outliers(method):
    order = np.random.default_rng(3).permutation(len(PEOPLE))
    before, after = (
        label_images(PEOPLE, method=method).clustering,
        label_images(PEOPLE[order], method=method).clustering,
    )
    assert np.array_equal(after.core, before.core[order])
    assert np.array_equal(after.labels == OUTLIER, before.labels[order] == OUTLIER)


def test_the_order_of_images_does_not_change_components():
    order = np.random.default_rng(3).permutation(len(PEOPLE))
    before = label_images(PEOPLE, method="components").clustering.labels[order]
    after = label_images(PEOPLE[order], method="components").clustering.labels
    assert np.array_equal(after[:, None] == after, before[:, None] == before)


@pytest.mark.parametrize("method", ["dbscan", "components"])
def test_the_curve_is_what_separate_runs_of_the_method_give(method):
    for point in label_images(PEOPLE, method=method, eps=0.3).curve:
        alone = label_images(PEOPLE, method=method, eps=point.eps).clustering
        assert (point.clusters, point.outlier_share) == (alone.num_clusters, alone.outlier_share)
        assert point.largest_share == alone.largest_share


def test_the_curve_of_louvain_is_its_own_point():
    found = label_images(PEOPLE, method="louvain", eps=0.55)
    (point,) = found.curve
    assert (point.eps, point.clusters) == (0.55, found.clustering.num_clusters)
    assert point.largest_share == found.clustering.largest_share


def test_the_method_changes_clusters_and_not_what_they_are_made_of():
    dbscan, *others = (label_images(PEOPLE, method=method) for method in METHODS)
    assert len(dbscan.curve) == len(CURVE_EPS)
    for other in others:
        assert other.num_edges == dbscan.num_edges
        assert other.distance_quantiles == dbscan.distance_quantiles
        assert other.max_in_degree == dbscan.max_in_degree
