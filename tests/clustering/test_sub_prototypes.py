"""Several prototypes a cluster, and similarities by them."""

import numpy as np
import pytest

from clustering.dbscan import OUTLIER
from clustering.partners import find_partners
from clustering.prototypes import cluster_prototypes
from clustering.sub_prototypes import SubPrototypes, sub_prototype_similarity, sub_prototypes
from tests.reference import relabelling as reference
from tests.reference.feature_sets import gaussian_features, identity_features, unit


@pytest.mark.parametrize(("size", "centres"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (7, 3), (8, 4), (40, 4)])
def test_small_clusters_have_fewer_centres(size, centres):
    rows = gaussian_features(size + 8, 16)
    found = sub_prototypes(rows, np.repeat([0, 1], [size, 8]))
    assert found.clusters.tolist() == [0] * centres + [1] * 4
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-6)


def test_centres_are_the_means_of_separate_parts():
    rows = unit(np.repeat(np.eye(4, 8), 5, axis=0) + 0.02 * gaussian_features(20, 8))
    found = sub_prototypes(rows, np.zeros(20, np.int64))
    expected = cluster_prototypes(rows, np.repeat(np.arange(4), 5))
    order = found.vectors.argmax(axis=1).argsort()
    np.testing.assert_allclose(found.vectors[order], expected, atol=1e-6)


def test_outliers_and_the_order_of_clusters_do_not_matter():
    rows, labels = gaussian_features(30, 16), np.tile([1, OUTLIER, 0], 10)
    found, again = sub_prototypes(rows, labels), sub_prototypes(rows, labels)
    assert np.array_equal(found.vectors, again.vectors)
    kept = labels != OUTLIER
    np.testing.assert_allclose(sub_prototypes(rows[kept], labels[kept]).vectors, found.vectors, atol=1e-6)
    assert found.clusters.tolist() == [0] * 4 + [1] * 4


def test_one_centre_is_the_prototype_and_its_similarity_the_cosine():
    people = identity_features(120, 6, 32)
    labels = np.arange(120) % 6
    found = sub_prototypes(people, labels, centres=1)
    prototypes = cluster_prototypes(people, labels)
    assert np.array_equal(found.vectors, prototypes)
    other = sub_prototypes(people[::-1].copy(), labels[:120], centres=1)
    np.testing.assert_allclose(sub_prototype_similarity(found, other), prototypes @ other.vectors.T, atol=1e-6)


def test_copies_in_a_cluster_give_one_centre():
    found = sub_prototypes(np.repeat(np.eye(1, 8, dtype=np.float32), 12, axis=0), np.zeros(12, np.int64))
    assert found.clusters.tolist() == [0]


def test_similarities_are_those_of_the_definition_and_transpose():
    visible = SubPrototypes(gaussian_features(9, 8), np.array([0, 0, 0, 0, 1, 2, 2, 3, 3]))
    infrared = SubPrototypes(gaussian_features(6, 8, seed=2), np.array([0, 1, 1, 1, 1, 2]))
    found = sub_prototype_similarity(visible, infrared)
    expected = reference.sub_prototype_similarity(
        visible.vectors, visible.clusters, infrared.vectors, infrared.clusters
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(sub_prototype_similarity(infrared, visible), found.T, atol=1e-6)
    assert len(find_partners(found).agreed().visible) == 3


def test_no_clusters_have_no_similarities():
    nothing = sub_prototypes(gaussian_features(3, 8), np.full(3, OUTLIER))
    some = sub_prototypes(gaussian_features(3, 8), np.array([0, 0, 1]))
    assert nothing.vectors.shape == (0, 8)
    assert sub_prototype_similarity(nothing, some).shape == (0, 2)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="centres must be at least 1, not 0"):
        sub_prototypes(gaussian_features(3, 8), np.zeros(3, np.int64), centres=0)
    with pytest.raises(ValueError, match="cluster 0 of 2 has no image"):
        sub_prototypes(gaussian_features(3, 8), np.ones(3, np.int64))
