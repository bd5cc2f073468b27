"""The closed form of DBSCAN is scikit-learn's, numbers and border images included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from clustering.dbscan import OUTLIER, Clustering, EpsPoint, dbscan, eps_curve
from clustering.jaccard import RadiusGraph, overlap_distances, smallest_overlap

ONE = 1 << 30


def graph_of_pairs(num_images, pairs, eps=0.7):
    """A graph of (image, image, distance)."""
    source, target, distance = zip(*pairs, strict=True) if pairs else ((), (), ())
    overlap = [smallest_overlap(value, ONE) for value in distance]
    return RadiusGraph(
        num_images,
        np.array(source, dtype=np.int32),
        np.array(target, dtype=np.int32),
        np.array(overlap, dtype=np.int64),
        ONE,
        eps,
    )


def graph_of_points(points, eps=0.7):
    """The graph and the full matrix of the Euclidean distances of points, rounded as overlaps are."""
    distance = np.minimum(np.linalg.norm(points[:, None] - points[None], axis=2), 1.0)
    overlap = np.round(2 * (1 - distance) / (2 - distance) * ONE).astype(np.int64)
    rounded = overlap_distances(overlap, ONE)
    source, target = np.nonzero(np.triu(overlap >= smallest_overlap(eps, ONE), k=1))
    graph = RadiusGraph(
        len(points), source.astype(np.int32), target.astype(np.int32), overlap[source, target], ONE, eps
    )
    return graph, rounded


def by_scikit_learn(distances, eps, min_samples):
    fitted = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances)
    core = np.zeros(len(distances), dtype=bool)
    core[fitted.core_sample_indices_] = True
    return fitted.labels_, core


@pytest.mark.parametrize("seed", range(300))
def test_labels_and_core_images_are_those_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    points = generator.random((int(generator.integers(1, 80)), 2)) * generator.uniform(0.2, 4.0)
    eps, min_samples = float(generator.uniform(0.02, 0.7)), int(generator.integers(1, 7))
    graph, distances = graph_of_points(points)
    found = dbscan(graph, eps, min_samples)
    labels, core = by_scikit_learn(distances, eps, min_samples)
    assert np.array_equal(found.labels, labels)
    assert np.array_equal(found.core, core)


def test_the_three_hundred_sets_hold_all_noise_and_single_clusters():
    kinds = set()
    for seed in range(300):
        generator = np.random.default_rng(seed)
        points = generator.random((int(generator.integers(1, 80)), 2)) * generator.uniform(0.2, 4.0)
        eps, min_samples = float(generator.uniform(0.02, 0.7)), int(generator.integers(1, 7))
        kinds.add(min(2, dbscan(graph_of_points(points)[0], eps, min_samples).num_clusters))
    assert kinds == {0, 1, 2}


@given(seed=st.integers(0, 10_000), eps=st.floats(0.02, 0.7), min_samples=st.integers(1, 6))
def test_the_order_of_images_moves_neither_core_images_nor_outliers(seed, eps, min_samples):
    generator = np.random.default_rng(seed)
    points = generator.random((40, 2)) * 2
    order = generator.permutation(40)
    before = dbscan(graph_of_points(points)[0], eps, min_samples)
    after = dbscan(graph_of_points(points[order])[0], eps, min_samples)
    assert np.array_equal(after.core, before.core[order])
    assert np.array_equal(after.labels == OUTLIER, before.labels[order] == OUTLIER)
    core = np.flatnonzero(after.core)  # a border image may change cluster; the core images' partition may not
    same_before = before.labels[order][core][:, None] == before.labels[order][core]
    assert np.array_equal(after.labels[core][:, None] == after.labels[core], same_before)


def test_an_image_at_distance_exactly_eps_is_a_neighbour():
    graph = graph_of_pairs(2, [(0, 1, 0.5)])
    assert dbscan(graph, 0.5, 2).labels.tolist() == [0, 0]
    assert dbscan(graph, 0.4999, 2).labels.tolist() == [OUTLIER, OUTLIER]


def test_an_image_counts_itself_towards_min_samples():
    # Image 1 has two neighbours: three images with itself. The ends have one: two.
    found = dbscan(graph_of_pairs(3, [(0, 1, 0.3), (1, 2, 0.3)]), 0.5, 3)
    assert found.core.tolist() == [False, True, False]
    assert found.labels.tolist() == [0, 0, 0]


def test_a_border_image_between_two_clusters_joins_the_lower_number():
    # Two triangles {0, 1, 2} and {4, 5, 6}; image 3 touches 2 and 4. With min_samples 4 the images 2 and 4 (three
    # neighbours and themselves) are core and 3 (two and itself) is not. Image 2 founds cluster 0, image 4 cluster 1.
    triangles = [(0, 1, 0.2), (0, 2, 0.2), (1, 2, 0.2), (4, 5, 0.2), (4, 6, 0.2), (5, 6, 0.2)]
    found = dbscan(graph_of_pairs(7, [*triangles, (2, 3, 0.2), (3, 4, 0.2)]), 0.5, 4)
    assert found.core.tolist() == [False, False, True, False, True, False, False]
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_clusters_are_numbered_by_their_smallest_core_image():
    # Core images 1-5-6 and 2-3-4 (each triangle, min_samples 3); image 0 is a border of 2: it does not found a number.
    triangles = [(1, 5, 0.2), (1, 6, 0.2), (5, 6, 0.2), (2, 3, 0.2), (2, 4, 0.2), (3, 4, 0.2)]
    found = dbscan(graph_of_pairs(7, [*triangles, (0, 2, 0.2)]), 0.5, 3)
    assert found.labels.tolist() == [1, 0, 1, 1, 1, 0, 0]


def test_with_min_samples_one_every_image_is_core():
    found = dbscan(graph_of_pairs(3, [(0, 2, 0.1)]), 0.5, 1)
    assert found.labels.tolist() == [0, 1, 0]
    assert found.core.all()


def test_no_images_have_no_clusters():
    found = dbscan(graph_of_pairs(0, []), 0.5, 4)
    assert (found.num_clusters, found.num_outliers) == (0, 0)
    assert (found.outlier_share, found.largest_share) == (0.0, 0.0)


def test_a_radius_beyond_the_graph_is_refused():
    with pytest.raises(ValueError, match=r"holds pairs up to distance 0.7, so eps cannot be 0.8"):
        dbscan(graph_of_pairs(2, []), 0.8, 4)


def test_min_samples_below_one_is_refused():
    with pytest.raises(ValueError, match="min_samples must be at least 1, not 0"):
        dbscan(graph_of_pairs(2, []), 0.5, 0)


def test_one_graph_gives_the_curve_of_separate_graphs():
    points = np.random.default_rng(5).random((120, 2)) * 3
    wide, _ = graph_of_points(points, eps=0.7)
    for point in eps_curve(wide, 3, (0.1, 0.2, 0.4, 0.7)):
        alone = dbscan(graph_of_points(points, eps=point.eps)[0], point.eps, 3)
        assert point == EpsPoint(point.eps, alone.num_clusters, alone.outlier_share, alone.largest_share)


def test_counts_and_shares_are_those_of_the_labels():
    # Five images: two in cluster 0, one in cluster 1, two outliers.
    labels = Clustering(np.array([0, -1, 0, 1, -1]), np.array([True, False, True, True, False]))
    assert (labels.num_clusters, labels.num_outliers) == (2, 2)
    assert (labels.outlier_share, labels.largest_share) == (0.4, 0.4)


@pytest.mark.parametrize("labels", [[0, 2], [1, 1], [-2, 0]])
def test_cluster_numbers_with_a_gap_are_refused(labels):
    with pytest.raises(ValueError, match="without a gap"):
        Clustering(np.array(labels), np.zeros(2, dtype=bool))


def test_an_outlier_cannot_be_core():
    with pytest.raises(ValueError, match="an outlier is marked as core image"):
        Clustering(np.array([-1]), np.array([True]))
