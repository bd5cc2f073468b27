"""Signs of quality without identities, worked out by hand or by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from clustering.quality import agreement, one_camera_share, score_pairs, silhouette, similarity_to_prototype


def unit(rows: object) -> np.ndarray:
    found = np.asarray(rows, np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("sample", [5, 40, 1000])
def test_the_silhouette_is_that_of_scikit_learn_for_cosine_distance(sample):
    generator = np.random.default_rng(3)
    features = unit(generator.normal(size=(60, 5)))
    labels = generator.integers(-1, 4, size=60)
    clustered = np.flatnonzero(labels >= 0)
    expected = silhouette_samples(features[clustered].astype(np.float64), labels[clustered], metric="cosine")
    chosen = np.linspace(0, len(clustered) - 1, min(sample, len(clustered))).round().astype(int)
    assert silhouette(features, labels, sample=sample) == pytest.approx(expected[chosen].mean(), abs=1e-5)


def test_an_image_alone_in_its_cluster_has_silhouette_zero():
    features = unit([[1, 0], [1, 0], [0, 1]])
    # Both images of cluster 0 have distance 0 to each other and 1 to cluster 1: silhouette 1 each; the third has 0.
    assert silhouette(features, np.array([0, 0, 1])) == pytest.approx(2 / 3)


def test_a_number_of_a_cluster_without_images_is_no_cluster():
    features = unit([[1, 0], [1, 0], [0, 1], [0, 1]])
    assert silhouette(features, np.array([0, 0, 2, 2])) == pytest.approx(1.0)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 0, 0], [0, -1, 0]])
def test_fewer_than_two_clusters_have_no_silhouette(labels):
    assert silhouette(unit(np.eye(3)), np.array(labels)) is None


def test_clusters_agree_whatever_their_numbers_and_outliers_do_not_count():
    before, now = np.array([0, 0, 1, 1, -1, 2]), np.array([5, 5, 0, 0, 1, -1])
    assert agreement(before, now) == 1.0
    assert agreement(np.array([0, 0, -1]), np.array([-1, -1, 0])) is None


def test_a_cluster_split_in_halves_agrees_less():
    # Pairs of images: 15; together before 15, now 6, in both 6. Expected 15 * 6 / 15 = 6: (6 - 6) / (10.5 - 6) = 0.
    assert agreement(np.zeros(6, np.int64), np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(0.0)


def test_clusters_of_one_camera_are_counted():
    labels, cameras = np.array([0, 0, 1, 1, 2, -1]), np.array([1, 2, 3, 3, 1, 2])
    assert one_camera_share(labels, cameras) == pytest.approx(2 / 3)
    assert one_camera_share(labels, np.ones(6, np.int64)) is None, "one camera only, or unknown ones"
    assert one_camera_share(np.full(6, -1), cameras) is None


def test_margins_compare_a_partner_with_the_best_other_cluster_of_each_side():
    visible, infrared = unit([[1, 0], [0, 1]]), unit([[3, 4], [4, 3], [1, 0]])
    # Similarities: visible 0: .6 .8 1; visible 1: .8 .6 0.
    pairs = score_pairs(np.array([0, 1]), np.array([1, 0]), visible, infrared)
    assert pairs.similarity.tolist() == pytest.approx([0.8, 0.8])
    assert pairs.visible_margin.tolist() == pytest.approx([-0.2, 0.2], abs=1e-6)
    assert pairs.infrared_margin.tolist() == pytest.approx([0.2, 0.2], abs=1e-6)
    assert pairs.margin.tolist() == pytest.approx([-0.2, 0.2], abs=1e-6)


def test_a_partner_without_rivals_has_an_infinite_margin():
    one = unit([[1, 0]])
    pairs = score_pairs(np.array([0]), np.array([0]), one, one)
    assert np.isinf(pairs.margin).all()


def test_an_outlier_is_as_similar_as_the_nearest_prototype():
    features, prototypes = unit([[1, 0], [3, 4], [0, 1]]), unit([[1, 0], [4, 3]])
    found = similarity_to_prototype(features, np.array([0, -1, 1]), prototypes)
    assert found.tolist() == pytest.approx([1.0, 0.96, 0.6])
    assert np.isnan(similarity_to_prototype(features, np.full(3, -1), np.empty((0, 2), np.float32))).all()
