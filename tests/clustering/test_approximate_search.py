"""Approximate lists are nearly the exact ones, and say how nearly."""

import logging

import faiss
import numpy as np
import pytest

from clustering import neighbours as module
from clustering.labelling import label_images
from clustering.neighbours import nearest_neighbours, search_all_pairs, search_some_pairs
from tests.reference.clustering import ranked
from tests.reference.feature_sets import copied_features, gaussian_features, identity_features

FEATURES = identity_features(1_500, 35, 48)
EXACT = nearest_neighbours(FEATURES, 20)
METHODS = ["ivf", "hnsw"]


@pytest.fixture(scope="module", params=METHODS)
def found(request):
    return nearest_neighbours(FEATURES, 20, method=request.param)


def test_the_recall_is_the_share_of_exact_neighbours_that_is_found(found):
    # Measured on 500 images; over all 1,500 the share is another by a few standard errors at most.
    listed = (EXACT.ranks[:, 1:, None] == found.ranks[:, None, :]).any(axis=2)
    assert found.recall == pytest.approx(listed.mean(), abs=0.005)
    assert found.recall > 0.97


def test_lists_begin_with_the_image_and_go_down(found):
    assert np.array_equal(found.ranks[:, 0], np.arange(1_500))
    assert all(len(set(row)) == 20 for row in found.ranks.tolist())
    assert np.all(np.diff(found.similarities[:, 1:], axis=1) <= 5e-6)
    rows = FEATURES.astype(np.float64)
    expected = np.einsum("nd,nkd->nk", rows, rows[found.ranks])
    np.testing.assert_allclose(found.similarities, expected, atol=1e-6)


def test_what_searched_is_told(found):
    assert found.search.startswith("faiss-cpu ivf" if "lists" in found.search else "faiss-cpu hnsw")
    assert EXACT.search == "faiss-cpu exact" and EXACT.recall is None


@pytest.mark.parametrize("method", METHODS)
def test_the_same_features_give_the_same_lists_on_one_thread_and_on_several(method):
    lists = []
    before = faiss.omp_get_max_threads()
    for threads in (1, 3, 3):
        faiss.omp_set_num_threads(threads)
        try:
            lists.append(nearest_neighbours(FEATURES, 10, method=method))
            assert faiss.omp_get_max_threads() == threads
        finally:
            faiss.omp_set_num_threads(before)
    assert all(np.array_equal(one.ranks, lists[0].ranks) and one.recall == lists[0].recall for one in lists)


@pytest.mark.parametrize("method", METHODS)
def test_ties_come_by_smaller_index(method):
    # 200 rows eight times each: a list of eight is the image and its seven copies, all of similarity 1.
    features = copied_features(200, 8, 24)
    found = nearest_neighbours(features, 8, method=method)
    assert found.recall > 0.97
    whole = np.all(features[found.ranks] == features[:, None], axis=(1, 2))
    assert whole.mean() > 0.97
    assert np.array_equal(found.ranks[whole], ranked(features)[whole, :8])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("images", [0, 1, 30, 999])
def test_few_images_are_searched_exactly(method, images):
    features = gaussian_features(images, 8)
    found = nearest_neighbours(features, 5, method=method)
    assert np.array_equal(found.ranks, nearest_neighbours(features, 5).ranks)
    assert (found.recall, found.search) == (1.0, "faiss-cpu exact, because there are few images")


def test_images_for_which_too_few_are_found_are_searched_exactly():
    ranks, similarities = search_all_pairs(FEATURES, 28)
    found, found_similarities = ranks.astype(np.int64), similarities.copy()
    found[[3, 700], 15:] = found[1_499, 27:] = found[8] = -1  # what faiss writes where it has no more
    lists, _ = module._complete_lists(FEATURES, found, found_similarities, 20)
    assert np.array_equal(lists, EXACT.ranks)


def test_an_image_that_is_not_found_itself_is_first_all_the_same():
    ranks, similarities = search_all_pairs(FEATURES, 28)
    lists, _ = module._complete_lists(FEATURES, ranks[:, 1:].astype(np.int64), similarities[:, 1:].copy(), 20)
    assert np.array_equal(lists, EXACT.ranks)


@pytest.mark.parametrize("method", METHODS)
def test_the_effort_is_raised_until_enough_is_found(method, monkeypatch):
    features = gaussian_features(1_500, 48)  # without structure, so that neighbours are everywhere
    efforts = []
    for goal in (0.3, 0.999):
        monkeypatch.setattr(module, "RECALL_GOAL", goal)
        _, _, recall, search = search_some_pairs(features, 10, method)
        efforts.append(int(search.split()[2]))
        assert recall > goal - 0.02
    assert efforts[0] < efforts[1]


def test_efforts_grow_by_halves_up_to_the_largest():
    # 4, 4 * 1.5 + 1 = 7, 10.5 + 1 = 11, 16.5 + 1 = 17, then 26, which is more than 20.
    assert module._efforts(4, 20) == [4, 7, 11, 17, 20]
    assert module._efforts(5, 5) == [5]
    assert module._efforts(0, 1) == [1]


def test_a_low_recall_is_a_warning_and_another_one_line(monkeypatch, caplog):
    features = gaussian_features(1_500, 48)
    with caplog.at_level(logging.INFO, logger="clustering"):
        good = nearest_neighbours(features, 10, method="ivf")
        monkeypatch.setattr(module, "_efforts", lambda *_: [1])
        poor = nearest_neighbours(features, 10, method="ivf")
    assert poor.recall < 0.9 < good.recall
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.records[1].message == f"{poor.search}: recall {poor.recall:.3f} on 500 sampled images"


@pytest.mark.parametrize("method", METHODS)
def test_labels_carry_the_recall_and_are_nearly_those_of_exact_lists(method):
    exact, found = label_images(FEATURES), label_images(FEATURES, neighbour_method=method)
    assert exact.recall is None and exact.search == "faiss-cpu exact"
    assert found.recall > 0.97 and method in found.search
    assert abs(found.clustering.num_clusters - exact.clustering.num_clusters) <= 2
    assert found.clustering.outlier_share == pytest.approx(exact.clustering.outlier_share, abs=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_lists_of_one_hold_the_image_itself(method):
    found = nearest_neighbours(FEATURES, 1, method=method)
    assert found.ranks[:, 0].tolist() == list(range(1_500))
    assert found.recall == 1.0
