"""Images move to the dense part of a cluster; outliers join near clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering.dbscan import OUTLIER, Clustering
from clustering.labelling import label_images
from clustering.prototypes import cluster_prototypes, nearest_prototypes
from clustering.relabelling import _densities, assign_outliers, relabel_by_density
from tests.reference import relabelling as reference
from tests.reference.feature_sets import gaussian_features, identity_features, unit

PEOPLE = identity_features(400, 10, 64)
FOUND = label_images(PEOPLE).clustering


def clustering(labels, core=()):
    flags = np.zeros(len(labels), np.bool_)
    flags[list(core)] = True
    return Clustering(np.array(labels, dtype=np.int64), flags)


def drawn(seed, images, clusters):
    """Labels at random, numbered without a gap."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(clusters), generator.integers(-1, clusters, size=images)])
    return identity_features(len(labels), clusters, 16, seed=seed), clustering(labels)


@given(seed=st.integers(0, 10_000), images=st.integers(0, 40), clusters=st.integers(1, 5), densest=st.integers(1, 12))
@settings(max_examples=30)
def test_images_move_as_in_the_definition(seed, images, clusters, densest):
    features, before = drawn(seed, images, clusters)
    found = relabel_by_density(features, before, densest=densest)
    assert np.array_equal(found.labels, reference.relabel_by_density(features, before.labels, densest))


@pytest.mark.parametrize("densest", [5, 20, 1_000])
def test_labels_of_people_are_those_of_the_definition(densest):
    found = relabel_by_density(PEOPLE, FOUND, densest=densest)
    assert np.array_equal(found.labels, reference.relabel_by_density(PEOPLE, FOUND.labels, densest))
    assert np.array_equal(found.labels == OUTLIER, FOUND.labels == OUTLIER)
    assert np.array_equal(found.core, FOUND.core)


def test_separate_clusters_stay_as_they_are():
    rows = unit(np.repeat(np.eye(4, 16), [3, 30, 8, 1], axis=0) + 0.05 * gaussian_features(42, 16))
    before = clustering(np.repeat([0, 1, 2, 3], [3, 30, 8, 1]), core=[0, 5])
    first = relabel_by_density(rows, before)
    assert np.array_equal(first.labels, before.labels)
    assert np.array_equal(relabel_by_density(rows, first).labels, first.labels)


def test_the_smaller_index_is_denser_in_a_tie():
    # Three directions at right angles: each image has density 1 - 2. The first alone forms the prototype of cluster 0,
    # so the others, at a right angle to it and nearer to cluster 1, leave it.
    rows = unit(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]], dtype=np.float64))
    found = relabel_by_density(rows, clustering([0, 0, 0, 1]), densest=1)
    assert found.labels.tolist() == [0, 1, 1, 1]


def test_a_cosine_of_one_half_counts_on_neither_side():
    # Cosines 0.5, 0.7 and 0: the first has itself and the third, the second itself less the third.
    rows = np.array([[0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], [0, 0, 0.6, 0.8]], dtype=np.float32)
    assert _densities(rows).tolist() == [2, 0, 1]


def test_clusters_without_images_are_removed():
    # Cluster 0's prototype is the mean of two opposite-ish images that both are nearer to another cluster.
    rows = unit(np.array([[1, 0.9], [1, -0.9], [1, 1], [1, -1], [-1, 0]], dtype=np.float64))
    found = relabel_by_density(rows, clustering([0, 0, 1, 2, 3]))
    assert found.labels.tolist() == [0, 1, 0, 1, 2]


def test_outliers_only_stay_outliers():
    before = clustering([OUTLIER, OUTLIER])
    assert relabel_by_density(PEOPLE[:2], before).labels.tolist() == [OUTLIER, OUTLIER]
    assert not assign_outliers(PEOPLE[:2], before).joined.any()
    assert assign_outliers(PEOPLE[:0], clustering([])).weights.shape == (0,)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="densest must be at least 1, not 0"):
        relabel_by_density(PEOPLE, FOUND, densest=0)
    with pytest.raises(ValueError, match="row 0 has length 2, not 1"):
        relabel_by_density(2 * PEOPLE, FOUND)
    with pytest.raises(ValueError, match="row 0 has length 2, not 1"):
        assign_outliers(2 * PEOPLE, FOUND)


@given(seed=st.integers(0, 10_000), images=st.integers(0, 40), clusters=st.integers(1, 5))
@settings(max_examples=30)
def test_outliers_join_as_in_the_definition(seed, images, clusters):
    features, before = drawn(seed, images, clusters)
    found = assign_outliers(features, before)
    assert np.array_equal(found.clustering.labels, reference.assign_outliers(features, before.labels))
    assert np.array_equal(found.joined, before.labels != found.clustering.labels)


def test_no_outlier_joins_below_the_median_and_prototypes_stay_as_they_are():
    labels = FOUND.labels.copy()
    labels[::3] = OUTLIER
    before = Clustering(labels, FOUND.core & (labels != OUTLIER))
    found = assign_outliers(PEOPLE, before)
    assert found.joined.any() and not np.any(found.joined & (labels != OUTLIER))
    prototypes = cluster_prototypes(PEOPLE, labels)
    assert np.array_equal(cluster_prototypes(PEOPLE, found.founding_labels), prototypes)
    for cluster, prototype in enumerate(prototypes):
        median = np.median(PEOPLE[labels == cluster] @ prototype)
        assert np.all(PEOPLE[found.joined & (found.clustering.labels == cluster)] @ prototype > median - 1e-6)
    assert np.array_equal(found.clustering.core, before.core)
    weights = np.where(found.joined, 0.5, np.where(found.clustering.labels == OUTLIER, 0.0, 1.0))
    assert found.weights.tolist() == weights.tolist()


def test_an_outlier_at_the_median_does_not_join():
    # One image: its median is its own similarity, 1, which nothing exceeds; not even a copy of it.
    rows = np.eye(2, dtype=np.float32)[[0, 0, 1]]
    assert not assign_outliers(rows, clustering([0, OUTLIER, OUTLIER])).joined.any()


def test_the_first_of_equal_prototypes_is_the_nearest():
    prototypes = unit(np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    rows = unit(np.array([[1.0, 0.0], [0.1, 1.0]]))
    assert nearest_prototypes(rows, prototypes).tolist() == [1, 0]
