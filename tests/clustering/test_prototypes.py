"""A prototype is the unit mean of its cluster."""

import inspect

import numpy as np
import pytest

from clustering.prototypes import camera_proxies, cluster_prototypes
from tests.reference import clustering as reference
from tests.reference.feature_sets import identity_features


def test_prototypes_are_the_unit_means_of_the_definition():
    features = identity_features(300, 8, 32)
    labels = np.random.default_rng(0).integers(-1, 8, size=300)
    found = cluster_prototypes(features, labels)
    np.testing.assert_allclose(found, reference.prototypes(features, labels), atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_outliers_have_no_part_in_a_prototype():
    # Cluster 1 holds (1, 0) and (0, 1): the mean is (1/2, 1/2), at unit length (0.7071, 0.7071). Cluster 0: (0, -1).
    features = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    found = cluster_prototypes(features, np.array([1, 1, -1, 0]))
    np.testing.assert_allclose(found, [[0.0, -1.0], [0.5**0.5, 0.5**0.5]], atol=1e-7)


def test_a_cluster_of_one_image_has_that_image_as_prototype():
    features = identity_features(1, 1, 16)
    np.testing.assert_allclose(cluster_prototypes(features, np.array([0])), features, atol=1e-7)


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_no_clusters_have_no_prototypes(labels):
    features = identity_features(2, 1, 16)[: len(labels)]
    assert cluster_prototypes(features, np.array(labels, dtype=np.int64)).shape == (0, 16)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, 0], "cluster 1 of 3 has no image"),
        ([0, -2, 0], "labels must be -1 or a cluster number, not -2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        cluster_prototypes(np.eye(3, dtype=np.float32), np.array(labels))


def test_too_few_labels_are_refused_where_types_are_not_checked():
    untyped = inspect.unwrap(cluster_prototypes)  # as users call it: under test, the annotation refuses them before
    with pytest.raises(ValueError, match="3 rows of features need as many labels, not 2"):
        untyped(np.eye(3, dtype=np.float32), np.array([0, 1]))


def test_a_cluster_whose_features_cancel_out_is_refused():
    features = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    with pytest.raises(ValueError, match="features of cluster 0 cancel out"):
        cluster_prototypes(features, np.array([0, 0]))


def test_a_proxy_is_the_unit_mean_of_a_clusters_images_of_one_camera():
    # Cluster 0 has camera 6 alone; cluster 1 has (1, 0) and (0, 1) in camera 3, (0, -1) in camera 6.
    features = np.array([[1, 0], [0, -1], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    found = camera_proxies(features, np.array([1, 1, 1, -1, 0]), np.array([3, 6, 3, 3, 6]))
    np.testing.assert_allclose(found.prototypes, [[0, -1], [0.5**0.5, 0.5**0.5], [0, -1]], atol=1e-7)
    assert found.clusters.tolist() == [0, 1, 1]
    assert found.of_images.tolist() == [1, 2, 1, -1, 0]
