"""The matching is the best one, and knows its limits."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from clustering import matching as module
from clustering.matching import Matching, assign_sparsely, match_clusters
from tests.reference.clustering import best_assignment
from tests.reference.feature_sets import gaussian_features, unit


@given(seed=st.integers(0, 10_000), num_visible=st.integers(1, 5), num_infrared=st.integers(1, 5))
def test_the_total_is_that_of_the_best_permutation(seed, num_visible, num_infrared):
    visible = gaussian_features(num_visible, 4, seed=seed)
    infrared = gaussian_features(num_infrared, 4, seed=seed + 1)
    found = match_clusters(visible, infrared)
    assert found.similarity.sum() == pytest.approx(best_assignment(visible @ infrared.T), abs=1e-5)
    assert len(found.visible) == min(num_visible, num_infrared)


def test_the_best_total_may_leave_the_most_similar_pair_apart():
    # Similarities, rows visible: [[0.96, 0.8], [0.8, 0]]. Greedy takes 0.96 + 0; crossed pairs give 0.8 + 0.8 = 1.6.
    visible = np.array([[0.96, 0.28, 0.0], [0.8, -0.6, 0.0]], dtype=np.float32)
    third = np.array([0.6, 0.8, 0.0], dtype=np.float32)  # 0.8 with the first, 0 with the second
    infrared = np.array([[1.0, 0.0, 0.0], third], dtype=np.float32)
    found = match_clusters(visible, infrared)
    assert found.infrared.tolist() == [1, 0]
    np.testing.assert_allclose(found.similarity, [0.8, 0.8], atol=1e-6)


@pytest.mark.parametrize(("num_visible", "num_infrared"), [(7, 7), (9, 4), (4, 9)])
def test_exchanging_the_modalities_exchanges_the_fields(num_visible, num_infrared):
    visible, infrared = gaussian_features(num_visible, 8), gaussian_features(num_infrared, 8, seed=2)
    forth, back = match_clusters(visible, infrared), match_clusters(infrared, visible)
    pairs = set(zip(forth.visible.tolist(), forth.infrared.tolist(), strict=True))
    assert pairs == set(zip(back.infrared.tolist(), back.visible.tolist(), strict=True))


def test_a_pair_exactly_at_the_floor_is_kept_and_one_below_is_dropped():
    visible = np.eye(2, dtype=np.float32)
    infrared = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    infrared[1] = [0.6, 0.8]  # similarity 0.8 with visible cluster 1
    assert match_clusters(visible, infrared, floor=0.9).visible.tolist() == [0]
    assert match_clusters(visible, infrared, floor=float(np.float32(0.8))).visible.tolist() == [0, 1]
    assert match_clusters(visible, infrared).visible.tolist() == [0, 1]


def test_without_a_floor_opposite_clusters_are_paired_too():
    visible = np.array([[1.0, 0.0]], dtype=np.float32)
    assert match_clusters(visible, -visible).similarity.tolist() == [-1.0]


@pytest.mark.parametrize(("num_visible", "num_infrared"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("limit", [5_000, 0])
def test_a_modality_without_clusters_has_no_pairs(num_visible, num_infrared, limit, monkeypatch):
    monkeypatch.setattr(module, "DENSE_LIMIT", limit)
    found = match_clusters(gaussian_features(num_visible, 4), gaussian_features(num_infrared, 4))
    assert len(found.visible) == len(found.infrared) == len(found.similarity) == 0


def test_a_cluster_has_one_partner_at_most():
    with pytest.raises(ValueError, match="matched twice"):
        Matching(np.array([0, 1]), np.array([3, 3]), np.array([0.5, 0.4], dtype=np.float32))


def test_rows_that_were_not_normalised_are_refused():
    with pytest.raises(ValueError, match="row 0 has length 2, not 1"):
        match_clusters(np.eye(2, dtype=np.float32), 2 * np.eye(2, dtype=np.float32))


@pytest.mark.parametrize("seed", range(200))
def test_the_sparse_assignment_has_the_total_of_the_dense_one(seed):
    # Half as many candidates as clusters, so that most pairs of the dense problem are not proposed.
    generator = np.random.default_rng(seed)
    num_visible, num_infrared = generator.integers(10, 60, size=2)
    people = generator.standard_normal((60, 16))
    visible = unit(people[:num_visible] + 0.7 * generator.standard_normal((num_visible, 16)))
    infrared = unit(people[:num_infrared] + 0.7 * generator.standard_normal((num_infrared, 16)))
    similarity = visible.astype(np.float64) @ infrared.T.astype(np.float64)
    rows, columns = assign_sparsely(visible, infrared, candidates=int(max(num_visible, num_infrared)) // 2)
    assert len(rows) == min(num_visible, num_infrared)
    assert np.all(np.diff(rows) > 0)
    assert similarity[rows, columns].sum() == pytest.approx(
        similarity[linear_sum_assignment(similarity, maximize=True)].sum(), abs=1e-5
    )


def test_candidates_are_widened_until_all_can_be_assigned():
    # On a half circle, visible clusters within the first 5 degrees, infrared ones from 90 on: all visible clusters
    # propose the infrared clusters from 0 on, the nearest, and all infrared ones the visible clusters from 4 down. With
    # one and two candidates, visible 0, 1 and 2 have infrared 0 and 1 at most; with four, only pair (0, 4) is missing.
    def on_circle(degrees):
        angles = np.radians(degrees)
        return unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))

    visible, infrared = on_circle(np.linspace(0, 5, 5)), on_circle(np.linspace(90, 170, 5))
    rows, columns = assign_sparsely(visible, infrared, candidates=1)
    assert rows.tolist() == sorted(columns.tolist()) == [0, 1, 2, 3, 4]
    similarity = visible.astype(np.float64) @ infrared.T.astype(np.float64)
    proposed = similarity.copy()
    proposed[0, 4] = -10.0
    expected = similarity[linear_sum_assignment(proposed, maximize=True)].sum()
    assert similarity[rows, columns].sum() == pytest.approx(expected, abs=1e-5)


def test_many_clusters_are_matched_sparsely_with_the_same_result(monkeypatch):
    visible = gaussian_features(80, 16)
    infrared = unit(visible[::-1] + 0.1 * gaussian_features(80, 16, seed=2))
    dense = match_clusters(visible, infrared)
    monkeypatch.setattr(module, "DENSE_LIMIT", 50)
    monkeypatch.setattr(scipy.optimize, "linear_sum_assignment", None)  # would fail if it were called
    sparse = match_clusters(visible, infrared)
    assert np.array_equal(sparse.infrared, dense.infrared)
    assert np.array_equal(sparse.infrared, np.arange(80)[::-1])
