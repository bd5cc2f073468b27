"""The search finds what a full sort finds, ties included."""

import faiss
import numpy as np
import pytest

from clustering import neighbours as module
from clustering.neighbours import nearest_neighbours
from tests.fresh_process import run_fresh
from tests.reference.clustering import ranked
from tests.reference.feature_sets import copied_features, gaussian_features, identity_features

SETS = {
    "people": identity_features(400, 10, 64),
    "no structure": gaussian_features(300, 16),
    "fewer copies than neighbours": copied_features(30, 10, 16),
    "more copies than neighbours": copied_features(8, 50, 16),
    "all images equal": copied_features(1, 60, 16),
    "only right angles": np.eye(60, dtype=np.float32),
}


@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize("k", [1, 2, 30])
def test_lists_are_those_of_a_full_sort_with_ties_by_smaller_index(features, k):
    found = nearest_neighbours(features, k)
    assert np.array_equal(found.ranks, ranked(features)[:, :k])


@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
def test_similarities_are_the_inner_products_of_the_listed_rows(features):
    found = nearest_neighbours(features, 7)
    rows = features.astype(np.float64)
    expected = np.einsum("nd,nkd->nk", rows, rows[found.ranks])
    np.testing.assert_allclose(found.similarities, expected, atol=1e-6)


def test_an_image_with_more_copies_than_places_is_first_in_its_own_list():
    found = nearest_neighbours(copied_features(1, 60, 16), 5)
    assert found.ranks[59].tolist() == [59, 0, 1, 2, 3]
    assert found.ranks[2].tolist() == [2, 0, 1, 3, 4]


def test_ties_that_go_on_beyond_one_block_of_the_second_search_are_settled(monkeypatch):
    features = copied_features(8, 50, 16)
    monkeypatch.setattr(module, "SIMILARITIES_PER_BLOCK", 7 * len(features))  # seven images at a time
    assert np.array_equal(nearest_neighbours(features, 30).ranks, ranked(features)[:, :30])


def test_blocks_of_queries_do_not_change_the_lists(monkeypatch):
    features = SETS["people"]
    whole = nearest_neighbours(features, 30)
    monkeypatch.setattr(module, "QUERIES_PER_SEARCH", 33)
    assert np.array_equal(nearest_neighbours(features, 30).ranks, whole.ranks)


def test_the_number_of_threads_does_not_change_the_lists(monkeypatch):
    features = identity_features(1_000, 25, 256)
    several = nearest_neighbours(features, 30)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: 1)
    try:
        assert np.array_equal(nearest_neighbours(features, 30).ranks, several.ranks)
    finally:
        faiss.omp_set_num_threads(threads)


@pytest.mark.parametrize(("images", "k", "length"), [(0, 30, 0), (1, 30, 1), (5, 30, 5), (5, 5, 5)])
def test_fewer_images_than_places_give_lists_of_all_images(images, k, length):
    found = nearest_neighbours(gaussian_features(images, 8), k)
    assert found.ranks.shape == found.similarities.shape == (images, length)
    assert all(sorted(row) == list(range(images)) for row in found.ranks.tolist())


def test_a_list_needs_at_least_one_place():
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        nearest_neighbours(SETS["people"], 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "row 3 is not finite"),
        (np.inf, "row 3 is not finite"),
        (0.0, "row 3 has length 0, not 1"),
        (2.0, "row 3 has length 2, not 1"),
    ],
)
def test_the_first_bad_row_is_named_and_all_are_counted(value, message):
    rows = np.eye(8, dtype=np.float32)
    rows[3, 3] = rows[5, 5] = value
    with pytest.raises(ValueError, match=message + r" \(2 of 8 rows are bad\)"):
        nearest_neighbours(rows, 2)


def test_importing_the_package_loads_neither_faiss_nor_torch():
    script = "import sys, clustering.labelling, clustering.matching; print({'faiss', 'torch'} & set(sys.modules))"
    assert run_fresh(script).strip() == "set()"
