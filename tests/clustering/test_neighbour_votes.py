"""Soft targets from the clusters of neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.dbscan import OUTLIER
from clustering.neighbour_votes import soft_labels
from tests.reference import relabelling as reference


def lists(*rows):
    return np.array(rows, dtype=np.int32)


@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 12),
    voters=st.integers(1, 12),
    clusters=st.integers(1, 4),
    k=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.7, 1.0]),
)
@settings(max_examples=60)
def test_targets_and_weights_are_those_of_the_definition(seed, images, voters, clusters, k, share):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(clusters), generator.integers(-1, clusters, size=voters)])
    k = min(k, len(labels))
    ranks = np.array([generator.permutation(len(labels))[:k] for _ in range(images)], dtype=np.int32)
    own = generator.integers(-1, clusters, size=images)
    found = soft_labels(ranks, labels, own, one_hot_share=share)
    targets, weights = reference.soft_labels(ranks, labels, own, share)
    np.testing.assert_allclose(found.targets.toarray(), targets, atol=1e-6)
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    sums = found.targets.sum(axis=1)
    np.testing.assert_allclose(sums, own != OUTLIER, atol=1e-6)


def test_neighbours_that_are_the_whole_cluster_leave_no_doubt():
    labels = np.array([0, 0, 0, 1])
    found = soft_labels(lists([0, 1, 2]), labels, labels[:1])
    assert found.targets.toarray().tolist() == [[1.0, 0.0]]
    assert found.weights.tolist() == [1.0]


def test_an_image_without_clustered_neighbours_has_its_own_target_and_no_weight():
    labels = np.array([OUTLIER, 0, OUTLIER])
    found = soft_labels(lists([0, 2]), labels, np.array([0]))
    assert (found.targets.toarray().tolist(), found.weights.tolist()) == ([[1.0]], [0.0])


def test_outliers_have_neither_target_nor_weight():
    labels = np.array([0, 0, OUTLIER])
    found = soft_labels(lists([0, 1], [2, 0]), labels, labels[[0, 2]])
    assert found.targets.toarray()[1].tolist() == [0.0] and found.weights[1] == 0.0
    assert found.targets.indptr.tolist() == [0, 1, 1]  # entries of the own cluster are added


def test_votes_count_by_the_size_of_their_cluster():
    # k = 3. Cluster 0: two votes, two images: 2 / (3 - 2 + 2) = 2/3. Cluster 1: one vote, four images: 1 / 6.
    labels = np.array([0, 0, 1, 1, 1, 1])
    found = soft_labels(lists([0, 1, 2]), labels, labels[:1])
    shares = np.array([2 / 3, 1 / 6]) / (5 / 6)
    np.testing.assert_allclose(found.targets.toarray()[0], [0.7 + 0.3 * shares[0], 0.3 * shares[1]], atol=1e-6)
    assert found.weights[0] == pytest.approx(np.exp(-10 * 0.2**2), abs=1e-6)  # own share 4/5


def test_no_images_and_no_clusters_give_empty_targets():
    nobody = soft_labels(np.empty((0, 3), np.int32), np.array([0, 0]), np.empty(0, np.int64))
    assert nobody.targets.shape == (0, 1)
    outliers = soft_labels(lists([0, 1]), np.array([OUTLIER, OUTLIER]), np.array([OUTLIER]))
    assert (outliers.targets.shape, outliers.weights.tolist()) == ((1, 0), [0.0])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="one_hot_share must be from 0 to 1"):
        soft_labels(lists([0]), np.array([0]), np.array([0]), one_hot_share=1.5)
    with pytest.raises(ValueError, match="an image is in cluster 3 of 1"):
        soft_labels(lists([0]), np.array([0]), np.array([3]))
