"""Re-ranking is the slow definition, however it is cut up, and never brings a excluded pair back."""

import math
import tracemalloc

import numpy as np
import pytest

from clustering import parallel
from pipeline.errors import ConfigError
from pipeline.evaluation.ranking import best_gallery, rank_queries, summarise
from pipeline.evaluation.reranking import k_reciprocal
from tests.reference.feature_sets import (
    copied_features,
    gaussian_features,
    identity_features,
    untrained_features,
)
from tests.reference.reranking import final_distances

# Features, and how many of them, from the front, are queries.
SETS = {
    "people": (identity_features(400, 12, 64), 150),
    "more queries than gallery": (identity_features(300, 12, 64, seed=2), 260),
    "no structure": (gaussian_features(200, 16), 50),
    "untrained network": (untrained_features(200, 32), 80),
    "copies on both sides": (copied_features(30, 5, 16), 60),
    "more copies than k1": (copied_features(5, 30, 16), 60),
    "fewer images than k1": (identity_features(9, 2, 16), 4),
    "one query, one image": (gaussian_features(2, 8), 1),
}


def split(name):
    features, queries = SETS[name]
    return features[:queries], features[queries:]


def assert_ranks_like(found, distances, tolerance):
    """Wherever two gallery images differ by more than the tolerance, they stand in the same order."""
    for row, wanted in zip(found, distances, strict=True):
        order = np.argsort(wanted, kind="stable")
        apart = np.diff(wanted[order]) > tolerance
        assert (np.diff(row[order])[apart] < 0).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("k1", "k2", "original_weight"), [(20, 6, 0.3), (7, 1, 0.3), (20, 6, 0.0), (10, 10, 0.8)])
def test_re_ranking_agrees_with_the_full_matrices(name, k1, k2, original_weight):
    query, gallery = split(name)
    expected = final_distances(query, gallery, k1, k2, original_weight)
    found = k_reciprocal(query, gallery, k1=k1, k2=k2, original_weight=original_weight)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, -expected, atol=1e-5, rtol=0)
    assert_ranks_like(found, expected, tolerance=2e-5)


def test_two_images_worked_by_hand():
    # The squared distance, .8, is that to the farthest image: divided by it, it is 1. Each is the other's only
    # neighbour, so both rows are softmax(0, -1), mirrored: own weight 1 / (1 + e^-1), the other's e^-1 / (1 + e^-1).
    # They share the smaller one twice: m = 2 e^-1 / (1 + e^-1). Together: .7 (1 - m / (2 - m)) + .3.
    found = k_reciprocal(np.array([[1.0, 0.0]], dtype=np.float32), np.array([[0.6, 0.8]], dtype=np.float32), k1=1, k2=1)
    shared = 2 * math.exp(-1) / (1 + math.exp(-1))
    assert found[0, 0] == pytest.approx(-(0.7 * (1 - shared / (2 - shared)) + 0.3), abs=1e-6)


def test_the_farthest_image_may_be_a_query():
    # Squared distances of the first query: .8 to the gallery image, 4 to the second query, opposite to it.
    query = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    found = k_reciprocal(query, np.array([[0.6, 0.8]], dtype=np.float32), original_weight=1.0)
    # The second query is 3.2 from the gallery image and 4 from the first.
    np.testing.assert_allclose(found, [[-0.8 / 4], [-3.2 / 4]], atol=1e-6)


def test_the_original_distance_alone_keeps_the_order_of_the_cosine():
    query, gallery = split("people")
    cosine = query.astype(np.float64) @ gallery.T.astype(np.float64)
    found = k_reciprocal(query, gallery, original_weight=1.0)
    assert_ranks_like(found, -cosine, tolerance=1e-5)


def test_a_match_that_the_neighbours_vouch_for_moves_ahead_of_a_stranger_who_is_nearer():
    def at(*degrees):
        angles = np.radians(degrees)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    # A person's images at 0 to 24 degrees, in both tables; a stranger at -11, whose own neighbours lie beyond it. From
    # the query at 0 the stranger is nearer (11) than the match (12), which shares the query's neighbours.
    query, gallery = at(0, 3, 6, 9), at(-11, 12, -13, -14, -15, -16)
    excluded = np.zeros((4, 6), dtype=bool)
    people = np.array([1, 1, 1, 1]), np.array([2, 1, 2, 2, 2, 2])
    assert rank_queries(query @ gallery.T, *people, excluded).rank[0] == 2
    again = k_reciprocal(query, gallery, k1=4, k2=2)
    assert rank_queries(again, *people, excluded).rank[0] == 1


def test_copies_of_a_gallery_image_are_equally_near_where_no_list_ends_among_them():
    query, gallery = split("copies on both sides")
    copies = (gallery[:, None] == gallery).all(axis=2)
    assert copies.sum() > len(gallery)
    # Five copies of each image: lists of 10 (k1 and the image itself), of 5 (half, and one) and of k2 end between
    # different images. Where a list ends among copies, those of smaller index are in it and the others are not.
    found = k_reciprocal(query, gallery, k1=9, k2=5)
    for one, other in np.argwhere(copies):
        np.testing.assert_allclose(found[:, one], found[:, other], atol=2e-6)


@pytest.mark.parametrize("original_weight", [0.0, 0.3, 1.0])
def test_where_all_images_are_copies_nothing_is_nearer(original_weight):
    # Every squared distance is what rounding leaves of 0, and would otherwise be divided by the largest such rest. All
    # eleven images are in each other's neighbourhood, with equal weights, whose sum is exact although 1/11 is not.
    row = gaussian_features(1, 512)[0] * np.float32(1 - 2e-7)  # too short by so little that any way of summing sees it
    query, gallery = np.tile(row, (5, 1)), np.tile(row, (6, 1))
    assert (2.0 - 2.0 * query @ gallery.T).max() > 0
    np.testing.assert_array_equal(k_reciprocal(query, gallery, original_weight=original_weight), np.zeros((5, 6)))


def test_hidden_pairs_stay_hidden_after_re_ranking():
    query, gallery = split("people")
    excluded = np.random.default_rng(0).random((len(query), len(gallery))) < 0.3
    found = k_reciprocal(query, gallery)
    best = best_gallery(found, excluded, count=len(gallery))
    for row, row_excluded in zip(best, excluded, strict=True):
        assert sorted(row[row >= 0].tolist()) == np.flatnonzero(~row_excluded).tolist()
    people = np.arange(len(query)) % 12, np.arange(len(gallery)) % 12
    assert summarise(rank_queries(found, *people, excluded)).hidden_pairs == np.count_nonzero(excluded)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_number_of_threads_changes_no_bit(threads, monkeypatch):
    query, gallery = split("people")
    expected = k_reciprocal(query, gallery)
    monkeypatch.setattr(parallel, "num_threads", lambda: threads)
    np.testing.assert_array_equal(k_reciprocal(query, gallery), expected)


def test_the_farthest_images_are_the_same_block_by_block(monkeypatch):
    query, gallery = split("people")
    expected = k_reciprocal(query, gallery)
    monkeypatch.setattr("pipeline.evaluation.reranking.SIMILARITIES_PER_BLOCK", 7 * (len(query) + len(gallery)))
    np.testing.assert_allclose(k_reciprocal(query, gallery), expected, atol=1e-6)


def test_arguments_stay_as_they_are():
    query, gallery = split("people")
    before = query.copy(), gallery.copy()
    k_reciprocal(query, gallery)
    np.testing.assert_array_equal(query, before[0])
    np.testing.assert_array_equal(gallery, before[1])


def test_memory_is_that_of_query_by_gallery_never_of_all_by_all():
    # 200 queries, 8,000 images: 200 x 8,000 float32 are 6 MB, 8,200 x 8,200 values of even one byte 67 MB.
    features = identity_features(8200, 100, 16)
    query, gallery = features[:200], features[200:]
    k_reciprocal(query[:2], gallery[:20])  # what is loaded at the first call is not counted
    tracemalloc.start()
    try:
        k_reciprocal(query, gallery)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8200**2


def test_no_queries_or_no_gallery_give_an_empty_matrix():
    rows = gaussian_features(4, 8)
    assert k_reciprocal(rows[:0], rows).shape == (0, 4)
    assert k_reciprocal(rows, rows[:0]).shape == (4, 0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"k1": 5, "k2": 6}, "k1 is 5 and k2 is 6"),
        ({"k2": 0}, "k1 is 20 and k2 is 0"),
        ({"original_weight": 1.5}, r"weight 1\.5"),
        ({"original_weight": -0.1}, r"weight -0\.1"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, problem):
    rows = gaussian_features(4, 8)
    with pytest.raises(ConfigError, match=problem):
        k_reciprocal(rows, rows, **settings)
