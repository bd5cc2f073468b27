"""Partners of clusters: every method, its transpose, its limits."""

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from clustering import transport as module
from clustering.matching import match_clusters
from clustering.partners import NO_PARTNER, DirectedMatching, confidence, directed, find_partners, progressive_pairs
from clustering.transport import transport_plan
from tests.reference import partners as reference
from tests.reference.feature_sets import gaussian_features, unit

METHODS = ["hungarian", "mutual", "progressive", "transport"]
every_method = pytest.mark.parametrize("method", METHODS)


def similarities(rows, columns, *, seed=1):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, size=(rows, columns)).astype(np.float32)


def pairs_of(found):
    return set(zip(*(side.tolist() for side in found), strict=True))


@every_method
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(5, 2), (2, 5), (7, 3), (1, 9), (6, 6), (0, 4), (4, 0), (0, 0)])
def test_transposing_exchanges_the_sides(method, strict, rows, columns):
    similarity = similarities(rows, columns)
    forth = find_partners(similarity, method=method, strict=strict)
    back = find_partners(np.ascontiguousarray(similarity.T), method=method, strict=strict)
    assert np.array_equal(forth.of_visible, back.of_infrared)
    assert np.array_equal(forth.of_infrared, back.of_visible)
    assert (len(forth.of_visible), len(forth.of_infrared)) == (rows, columns)
    assert np.array_equal(np.isnan(forth.visible_similarity), forth.of_visible == NO_PARTNER)
    chosen = forth.of_visible != NO_PARTNER
    assert np.array_equal(
        forth.visible_similarity[chosen], similarity[np.flatnonzero(chosen), forth.of_visible[chosen]]
    )


@pytest.mark.parametrize("method", ["hungarian", "mutual"])
def test_one_to_one_methods_give_the_pairs_of_the_matching(method):
    visible, infrared = gaussian_features(9, 8), gaussian_features(6, 8, seed=2)
    expected = match_clusters(visible, infrared, method=method)
    found = find_partners(visible @ infrared.T, method=method).agreed()
    assert np.array_equal(found.visible, expected.visible)
    assert np.array_equal(found.infrared, expected.infrared)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)


def test_the_partners_of_a_matching_agree_on_it():
    matching = match_clusters(gaussian_features(9, 8), gaussian_features(6, 8, seed=2), floor=0.5)
    found = directed(matching, 9, 6)
    expected = find_partners(gaussian_features(9, 8) @ gaussian_features(6, 8, seed=2).T, floor=0.5)
    assert 0 < len(matching.visible) < 6
    assert np.array_equal(found.of_visible, expected.of_visible)
    assert np.array_equal(found.of_infrared, expected.of_infrared)
    np.testing.assert_allclose(found.infrared_similarity, expected.infrared_similarity, atol=1e-6)
    assert np.array_equal(found.agreed().infrared, matching.infrared)


@pytest.mark.parametrize("method", METHODS)
def test_pairs_below_the_floor_are_dropped(method):
    similarity = np.array([[0.9, 0.0], [0.1, 0.5], [0.2, 0.3]], dtype=np.float32)
    found = find_partners(similarity, method=method, floor=0.5)
    assert found.of_visible.tolist() == [0, 1, NO_PARTNER]
    assert found.of_infrared.tolist() == [0, 1]
    assert find_partners(similarity, method=method, floor=0.51).of_infrared.tolist() == [0, NO_PARTNER]


@given(seed=st.integers(0, 10_000), rows=st.integers(0, 6), columns=st.integers(0, 3))
@settings(max_examples=40)
def test_progressive_pairs_are_those_of_trying_every_assignment(seed, rows, columns):
    similarity = similarities(max(rows, columns), min(rows, columns), seed=seed)
    assert pairs_of(progressive_pairs(similarity)) == reference.progressive(similarity)
    assert pairs_of(progressive_pairs(similarity.T)) == {(two, one) for one, two in reference.progressive(similarity)}


@pytest.mark.parametrize(("rows", "columns"), [(5, 2), (2, 5), (7, 3), (1, 9)])
def test_every_cluster_of_the_larger_side_is_in_one_progressive_pair(rows, columns):
    visible, infrared = progressive_pairs(similarities(rows, columns))
    larger = visible if rows > columns else infrared
    assert np.array_equal(np.sort(larger), np.arange(max(rows, columns)))
    assert np.array_equal(np.lexsort((infrared, visible)), np.arange(len(visible)))
    found = find_partners(similarities(rows, columns), method="progressive")
    assert pairs_of(found.pairs()) == pairs_of((visible, infrared))
    assert np.all(found.of_visible >= 0) and np.all(found.of_infrared >= 0)


def test_progressive_pairs_of_equal_counts_are_the_best_assignment():
    similarity = similarities(8, 8)
    expected = linear_sum_assignment(similarity, maximize=True)
    assert pairs_of(progressive_pairs(similarity)) == pairs_of(expected)


def test_the_partner_of_several_is_the_most_similar_of_them():
    similarity = np.array([[0.5], [0.9], [0.7]], dtype=np.float32)
    found = find_partners(similarity, method="progressive")
    assert (found.of_visible.tolist(), found.of_infrared.tolist()) == ([0, 0, 0], [1])
    assert found.infrared_similarity.tolist() == [np.float32(0.9)]
    assert found.agreed().visible.tolist() == [1]
    assert pairs_of(found.pairs()) == {(0, 0), (1, 0), (2, 0)}


def test_the_published_cost_may_choose_other_pairs():
    similarity = np.array([[0.99, 0.2], [0.2, -0.6]], dtype=np.float64)
    # Sums: 0.39 < 0.4. Of -exp(-s): -0.372 - 1.822 = -2.19 < -0.819 - 0.819 = -1.64.
    assert pairs_of(progressive_pairs(similarity)) == pairs_of(progressive_pairs(-np.exp(-similarity)))
    similarity[1, 1] = -0.58  # 0.41 > 0.4, but -0.372 - 1.786 is still below -1.64
    assert pairs_of(progressive_pairs(similarity)) == {(0, 0), (1, 1)}
    assert pairs_of(progressive_pairs(-np.exp(-similarity))) == {(0, 1), (1, 0)}


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (9, 5)])
@pytest.mark.parametrize("by_size", [False, True])
def test_plans_are_those_of_the_scaled_kernel(rows, columns, by_size):
    similarity = similarities(rows, columns)
    generator = np.random.default_rng(3)
    sizes = generator.integers(4, 40, size=rows), generator.integers(4, 40, size=columns)
    masses = (
        [size / size.sum() for size in sizes] if by_size else [np.full(rows, 1 / rows), np.full(columns, 1 / columns)]
    )
    expected = reference.transport(1.0 - similarity.astype(np.float64), *masses, 0.2)
    found = transport_plan(similarity, sizes=sizes if by_size else None, regularisation=0.2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(4, 8),
    columns=st.integers(4, 8),
    scale=st.sampled_from([0.05, 1.0]),
)
@settings(max_examples=30)
def test_plans_have_their_marginals(seed, rows, columns, scale):
    plan = transport_plan(scale * similarities(rows, columns, seed=seed), regularisation=scale / 4)
    assert np.abs(plan.sum(axis=1) - 1 / rows).sum() < 1e-5
    assert np.abs(plan.sum(axis=0) - 1 / columns).sum() < 1e-5


def test_permuting_clusters_permutes_the_plan():
    similarity, generator = similarities(7, 9), np.random.default_rng(2)
    rows, columns = generator.permutation(7), generator.permutation(9)
    expected = transport_plan(similarity)[rows][:, columns]
    np.testing.assert_allclose(transport_plan(similarity[rows][:, columns]), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_a_small_regularisation_gives_the_best_assignment_of_equal_counts(seed):
    people = gaussian_features(12, 16, seed=seed)
    similarity = people @ unit(people + 0.3 * gaussian_features(12, 16, seed=seed + 50)).T
    found = find_partners(similarity, method="transport", regularisation=0.005)
    assert np.array_equal(found.of_visible, linear_sum_assignment(similarity, maximize=True)[1])


def test_a_tiny_regularisation_gives_numbers(caplog):
    with caplog.at_level(logging.WARNING), np.errstate(over="raise", invalid="raise", divide="raise"):
        plan = transport_plan(similarities(30, 25), regularisation=1e-3)
    assert np.isfinite(plan).all()
    assert plan.sum() == pytest.approx(1.0, abs=1e-6)


def test_plans_that_do_not_settle_are_reported(caplog, monkeypatch):
    monkeypatch.setattr(module, "MOST_SWEEPS", 3)
    transport_plan(similarities(30, 25), regularisation=0.01)
    assert [record.message.partition(",")[0] for record in caplog.records] == ["transport: 3 sweeps"]


def test_many_clusters_against_few_need_not_keep_their_masses():
    # Nine visible clusters against two: the last seven are similar to neither and send next to nothing.
    similarity = np.full((9, 2), -1.0, np.float32)
    similarity[0, 0] = similarity[1, 1] = 1.0
    plan = transport_plan(similarity)
    # Of a column's 1/2, the row with cost 0 and mass 1/9 takes more than its mass.
    assert plan[0, 0] == pytest.approx(plan[1, 1]) and plan[0, 0] > 1 / 9
    assert plan[2:].sum() < 7 / 9
    twice = transport_plan(similarity[:4])  # twice as many: masses are kept
    np.testing.assert_allclose(twice.sum(axis=1), 1 / 4, atol=1e-6)
    # The relaxed optimum: rows and columns fulfil a^(1 + reg) = mass x ..., checked by its first-order conditions,
    # log plan = (similarity - 1 - log(row sum / mass) - log(column sum / mass)) / 0.05 for weight 1.
    gaps = [np.log(plan.sum(axis=axis) * count) for axis, count in ((1, 9), (0, 2))]
    expected = (similarity - 1.0 - gaps[0][:, None] - gaps[1]) / 0.05
    np.testing.assert_allclose(np.log(plan), expected, atol=1e-3)


def test_loose_transport_gives_the_arg_max_of_both_sides():
    similarity = similarities(9, 6)
    plan, found = transport_plan(similarity), find_partners(similarity, method="transport", strict=False)
    assert np.array_equal(found.of_visible, plan.argmax(axis=1))
    assert np.array_equal(found.of_infrared, plan.argmax(axis=0))
    strict = find_partners(similarity, method="transport")
    assert pairs_of(strict.pairs()) == {
        (row, column) for row, column in enumerate(plan.argmax(axis=1)) if plan.argmax(axis=0)[column] == row
    }
    assert pairs_of(strict.pairs()) == pairs_of((found.agreed().visible, found.agreed().infrared))


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), columns=st.integers(1, 6), scale=st.floats(0.01, 1.0))
@settings(max_examples=40)
def test_confidence_is_that_of_its_formula(seed, rows, columns, scale):
    similarity = similarities(rows, columns, seed=seed)
    pairs = progressive_pairs(similarity)
    found = confidence(similarity, pairs, temperature=scale)
    every = sorted(pairs_of(pairs))
    expected = [reference.confidence(similarity.astype(np.float64), pair, every, scale) for pair in every]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.all((found >= 0.0) & (found <= 1.0))


def test_confidence_of_hand_made_margins():
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.4, 0.2]], dtype=np.float32)
    # (0, 0): the other row is as similar. (1, 1): below another of its row.
    assert confidence(similarity, (np.array([0, 1]), np.array([0, 1])), temperature=0.1).tolist() == [0, 0]
    # (0, 2) is below (0, 0), which is a pair as well: margins 0.4 to the rest of its row, 0.3 to that of its column.
    twice = confidence(similarity, (np.array([0, 0]), np.array([0, 2])), temperature=0.1)
    assert twice.tolist() == [0, pytest.approx(math.sqrt(math.tanh(2.0) * math.tanh(1.5)), abs=1e-6)]
    alone = confidence(similarity[:1, :1], (np.array([0]), np.array([0])), temperature=0.1)
    assert alone.tolist() == [1.0]  # no other cluster in its row or column
    # Margins 0.4 (row) and infinity (column): sqrt(tanh(0.4 / 0.2)).
    one_row = confidence(similarity[:1], (np.array([0]), np.array([0])), temperature=0.1)
    assert one_row[0] == pytest.approx(math.sqrt(math.tanh(2.0)), abs=1e-6)
    assert confidence(similarity, (np.empty(0, np.int64), np.empty(0, np.int64)), temperature=0.1).shape == (0,)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures_of_zero_or_less_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        confidence(similarities(2, 2), (np.array([0]), np.array([0])), temperature=temperature)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="regularisation must be above 0, not 0"):
        transport_plan(similarities(2, 2), regularisation=0.0)
    with pytest.raises(ValueError, match="masses of clusters must be above 0, not 0"):
        transport_plan(similarities(2, 2), sizes=(np.array([1, 0]), np.array([1, 1])))
    bad = similarities(2, 2)
    bad[0, 1] = np.nan
    with pytest.raises(ValueError, match="1 similarities are not finite"):
        find_partners(bad)
    nothing = np.empty(1, np.float32)
    with pytest.raises(ValueError, match="a partner must be -1 or one of 1 clusters"):
        DirectedMatching(np.array([1]), np.array([0]), nothing, nothing)


@every_method
def test_similarities_are_not_changed(method):
    similarity = similarities(6, 4)
    similarity.setflags(write=False)
    pairs = find_partners(similarity, method=method).pairs()
    confidence(similarity, pairs, temperature=0.1)
