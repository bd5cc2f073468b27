"""The sparse distance is the dense one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.jaccard import (
    listed_distances,
    neighbourhood_weights,
    overlap_distances,
    radius_graph,
    smallest_overlap,
)
from clustering.neighbours import Neighbours, nearest_neighbours
from tests.clustering.graphs import jaccard_distances, jaccard_graph
from tests.reference import clustering as reference
from tests.reference.feature_sets import (
    blob_features,
    copied_features,
    gaussian_features,
    identity_features,
    untrained_features,
)

ONE = 1 << 30
WIDEST = 0.999  # pairs beyond share next to nothing
SETS = {
    "people": identity_features(500, 12, 64),
    "60 images": identity_features(60, 3, 32),
    "no structure": gaussian_features(300, 16),
    "untrained network": untrained_features(300, 32),
    "one blob": blob_features(300, 32),
    "copies": copied_features(25, 12, 16),
    "more copies than k1": copied_features(6, 50, 16),
    "fewer images than k1": identity_features(9, 2, 16),
}


def graph_of(features, k1, k2, eps=WIDEST, *, k1_counts_self=True):
    neighbours = nearest_neighbours(features, k1 + 1)
    return jaccard_graph(features, neighbours, k1=k1, k2=k2, eps=eps, k1_counts_self=k1_counts_self)


def dense(graph):
    """The distance matrix, with 1 for the pairs that the graph does not hold."""
    distances = np.ones((graph.num_images, graph.num_images))
    np.fill_diagonal(distances, 0.0)
    distances[graph.source, graph.target] = distances[graph.target, graph.source] = jaccard_distances(graph)
    return distances


@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (10, 6), (30, 1)])
def test_distances_are_within_a_millionth_of_the_dense_definition(features, k1, k2):
    expected = reference.jaccard_distances(features, min(k1, len(features)), min(k2, len(features)))
    found = dense(graph_of(features, k1, k2))
    near = expected <= WIDEST - 1e-6
    np.testing.assert_allclose(found[near], expected[near], atol=1e-6, rtol=0)
    assert np.all(found[~near] > WIDEST - 2e-6)


def test_lists_one_longer_are_those_of_the_original_re_ranking():
    features = SETS["people"]
    expected = reference.jaccard_distances(features, 10, 6, k1_counts_self=False)
    near = expected <= WIDEST - 1e-6
    found = dense(graph_of(features, 10, 6, k1_counts_self=False))
    np.testing.assert_allclose(found[near], expected[near], atol=1e-6, rtol=0)
    assert not np.allclose(found, dense(graph_of(features, 10, 6)))


def test_two_images_that_name_each_other_share_the_smaller_weights():
    # Cosine 0.6, so each row is softmax(0, -(2 - 1.2)): own weight 1 / (1 + e^-0.8), the other's e^-0.8 / (1 + e^-0.8).
    # The smaller one counts in both columns: m = 2 e^-0.8 / (1 + e^-0.8) = 0.62005, d = 1 - m / (2 - m) = 0.55067.
    graph = graph_of(np.array([[1.0, 0.0], [0.6, 0.8]], dtype=np.float32), 2, 1)
    shared = 2 * math.exp(-0.8) / (1 + math.exp(-0.8))
    assert graph.overlap[0] / ONE == pytest.approx(shared, abs=1e-8)
    assert jaccard_distances(graph)[0] == pytest.approx(0.55067, abs=1e-5)


def test_query_expansion_averages_the_neighbours_rows():
    # Images 0 and 1 are copies and list each other; image 2 lists itself and, by index, 0, which does not list it.
    # So V0 = V1 = (1/2, 1/2, 0) and V2 = (0, 0, 1). With k2 = 2, W2 = (V2 + V0) / 2 = (1/4, 1/4, 1/2), W0 and W1 stay.
    # Images 0 and 1 share everything; 2 shares 1/4 + 1/4 = 1/2 with each: d = 1 - 0.5 / 1.5 = 2/3.
    graph = graph_of(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32), 2, 2)
    assert list(zip(graph.source.tolist(), graph.target.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert graph.overlap.tolist() == [ONE, ONE // 2, ONE // 2]
    assert jaccard_distances(graph).tolist() == pytest.approx([0.0, 2 / 3, 2 / 3])


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (30, 1)])
def test_every_row_of_weights_sums_to_exactly_one(k1, k2):
    features = SETS["people"]
    weights = neighbourhood_weights(features, nearest_neighbours(features, k1), k1=k1, k2=k2)
    assert weights.scale == ONE - ONE % k2  # 2^30 = 6 * 178,956,970 + 4
    assert np.all(np.add.reduceat(weights.weights.astype(np.int64), weights.starts[:-1]) == weights.scale)
    assert weights.weights.min() > 0


def test_copies_have_distance_zero():
    features = np.repeat(identity_features(40, 4, 32), 3, axis=0)
    distances = dense(graph_of(features, 30, 6))
    copies = np.repeat(np.arange(40), 3)
    assert np.all(distances[copies[:, None] == copies] == 0.0)


@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
def test_a_graph_holds_each_pair_once_and_only_within_its_radius(features):
    graph = graph_of(features, 30, 6, eps=0.7)
    assert np.all(graph.source < graph.target)
    assert len(np.unique(graph.source.astype(np.int64) * len(features) + graph.target)) == len(graph.source)
    distances = jaccard_distances(graph)
    assert np.all((distances >= 0.0) & (distances <= 0.7))


@given(overlap=st.integers(0, ONE), eps=st.floats(0.0, 0.999_999))
def test_a_distance_is_within_eps_exactly_where_the_overlap_reaches_the_threshold(overlap, eps):
    (distance,) = overlap_distances(np.array([overlap]), ONE)
    assert (distance <= eps) == (overlap >= smallest_overlap(eps, ONE))


@pytest.mark.parametrize("eps", [0.0, 0.25, 0.4, 0.5, 0.6, 0.7, 0.999])
def test_the_pair_at_the_threshold_is_within_eps_and_the_next_is_not(eps):
    least = smallest_overlap(eps, ONE)
    at, below = overlap_distances(np.array([least, least - 1]), ONE)
    assert at <= eps < below
    assert least / ONE == pytest.approx(2 * (1 - eps) / (2 - eps), abs=1e-8)


@pytest.mark.parametrize("eps", [-0.1, 1.0, math.nan])
def test_a_radius_outside_zero_to_one_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be at least 0 and below 1"):
        smallest_overlap(eps, ONE)


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_threads_and_blocks_do_not_change_the_graph(threads, monkeypatch):
    features = SETS["people"]
    neighbours = nearest_neighbours(features, 30)
    first = jaccard_graph(features, neighbours, k1=30, k2=6, eps=0.7)
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: threads)
    second = jaccard_graph(features, neighbours, k1=30, k2=6, eps=0.7)
    assert np.array_equal(first.source, second.source)
    assert np.array_equal(first.target, second.target)
    assert np.array_equal(first.overlap, second.overlap)


def test_more_pairs_than_there_was_room_for_are_all_kept(monkeypatch):
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: 4)  # blocks of few images
    graph = graph_of(copied_features(1, 300, 8), 300, 1)
    assert len(graph.source) == 300 * 299 // 2  # more than the 32 an image that a block makes room for at first


def test_listed_distances_are_those_of_the_graph():
    features = SETS["people"]
    neighbours = nearest_neighbours(features, 10)
    weights = neighbourhood_weights(features, neighbours, k1=10, k2=6)
    distances = dense(radius_graph(weights, WIDEST))
    images = np.array([0, 7, 499])
    listed = listed_distances(weights, neighbours, images)
    expected = distances[images[:, None], neighbours.ranks[images, 1:]]
    inside = expected < 1.0
    assert np.array_equal(listed[inside], expected[inside])
    assert np.all(listed[~inside] > WIDEST)


@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
def test_distances_are_symmetric_between_zero_and_one_and_zero_to_the_image_itself(features):
    # Lists of all images: every pair is looked at from both sides, the nearest ones and those that share nothing.
    images = np.arange(len(features))
    everybody = np.array([np.roll(images, -image) for image in images], dtype=np.int32)  # the image itself first
    lists = Neighbours(everybody, np.zeros(everybody.shape, np.float32))
    weights = neighbourhood_weights(features, nearest_neighbours(features, 30), k1=30, k2=6)
    distances = np.zeros((len(features), len(features)))
    distances[images[:, None], everybody[:, 1:]] = listed_distances(weights, lists, images)
    assert np.array_equal(distances, distances.T)
    assert np.all((distances >= 0.0) & (distances <= 1.0))
    own = np.add.reduceat(weights.weights.astype(np.int64), weights.starts[:-1])  # sum of min(w, w)
    assert np.all(overlap_distances(own, weights.scale) == 0.0)


@pytest.mark.parametrize(("k1", "k2"), [(0, 1), (5, 0), (5, 6)])
def test_list_lengths_out_of_range_are_refused(k1, k2):
    features = SETS["60 images"]
    with pytest.raises(ValueError, match="k2 must be from 1 to k1"):
        neighbourhood_weights(features, nearest_neighbours(features, 10), k1=k1, k2=k2)


def test_lists_that_are_too_short_are_refused():
    features = SETS["60 images"]
    with pytest.raises(ValueError, match="60 images need as many lists of 11 neighbours, not 60 of 10"):
        neighbourhood_weights(features, nearest_neighbours(features, 10), k1=11, k2=6)
