"""Ranks and their means: worked by hand, compared with a slow twin, and held to what must always be true."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import DataError
from pipeline.evaluation.protocol import Sightings, hide_same_room
from pipeline.evaluation.ranking import QueryRanks, rank_queries, rank_trial, summarise, unit_rows
from tests.reference.ranking import mean_over_valid_queries, rank_all_queries

GOLDEN = Path(__file__).parents[2] / "golden" / "rankings.json"
WORKED = json.loads(GOLDEN.read_text())["rankings"]


def hide(rule, queries, gallery):
    same_camera = queries[:, 1, None] == gallery[:, 1]
    same_person = queries[:, 0, None] == gallery[:, 0]
    match rule:
        case "same_room":
            return hide_same_room(Sightings(*queries.T), Sightings(*gallery.T))
        case "same_person_and_camera":
            return same_person & same_camera
        case "same_camera":
            return same_camera
        case "nothing":
            return np.zeros_like(same_camera)
    raise AssertionError(rule)


@st.composite
def trials(draw, max_people=4):
    """Similarities with ties on purpose, people who may be absent, and any mask."""
    queries, gallery = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    person = st.integers(0, max_people)
    return (
        draw(arrays.arrays(np.int64, (queries, gallery), elements=st.integers(-3, 3))).astype(np.float64),
        draw(arrays.arrays(np.int64, queries, elements=person)),
        draw(arrays.arrays(np.int64, gallery, elements=person)),
        draw(arrays.arrays(np.bool_, (queries, gallery))),
    )


def distinct_trial(seed, queries=9, gallery=14, people=4):
    """A trial without ties, in which every query has a match."""
    generator = np.random.default_rng(seed)
    similarity = generator.permutation(queries * gallery).reshape(queries, gallery) / 100
    gallery_people = np.arange(gallery) % people
    return similarity, generator.integers(0, people, queries), gallery_people, np.zeros((queries, gallery), dtype=bool)


def as_values(ranks):
    return [
        (rank, ap, inp) if valid else None
        for rank, ap, inp, valid in zip(
            ranks.rank.tolist(),
            ranks.average_precision.tolist(),
            ranks.inverse_negative_penalty.tolist(),
            ranks.valid.tolist(),
            strict=True,
        )
    ]


def assert_same_metrics(left, right):
    np.testing.assert_array_equal(left.cmc, right.cmc)
    assert left.map == pytest.approx(right.map, abs=1e-12)
    assert left.minp == pytest.approx(right.minp, abs=1e-12)


@pytest.mark.parametrize("case", WORKED, ids=[case["name"] for case in WORKED])
def test_a_ranking_worked_by_hand_gives_its_fractions(case):
    queries, gallery = np.array(case["queries"]), np.array(case["gallery"])
    similarity = np.array(case["similarity"])
    hidden = hide(case["hidden"], queries, gallery)
    ranks = rank_queries(similarity, queries[:, 0], gallery[:, 0], hidden, rank_by=case["rank_by"])
    assert ranks.valid.tolist() == [rank is not None for rank in case["rank"]]
    assert ranks.rank.tolist() == [rank or 0 for rank in case["rank"]]
    for found, worked in (
        (ranks.average_precision, case["average_precision"]),
        (ranks.inverse_negative_penalty, case["inverse_negative_penalty"]),
    ):
        assert found.tolist() == pytest.approx([float(Fraction(value or 0)) for value in worked], abs=1e-15)
    metrics = summarise(ranks)
    # Where the hand-worked curve ends, it has reached its last value.
    curve = [float(Fraction(value)) for value in case["cmc"]]
    assert metrics.cmc.tolist() == pytest.approx(curve + [curve[-1]] * (20 - len(curve)), abs=1e-15)
    assert metrics.map == pytest.approx(float(Fraction(case["map"])), abs=1e-15)
    assert metrics.minp == pytest.approx(float(Fraction(case["minp"])), abs=1e-15)
    assert (metrics.valid_queries, metrics.queries) == (int(ranks.valid.sum()), len(queries))


@settings(max_examples=150, deadline=None)
@given(trial=trials(), rank_by=st.sampled_from(["person", "image"]), block=st.sampled_from([1, 2, 100]))
def test_ranking_agrees_with_the_loops_under_any_mask(trial, rank_by, block):
    expected = rank_all_queries(*trial, rank_by)
    ranks = rank_queries(*trial, rank_by=rank_by, queries_per_block=block)
    for found, wanted in zip(as_values(ranks), expected, strict=True):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            assert found == pytest.approx(wanted, abs=1e-14)
    if any(expected):
        metrics = summarise(ranks)
        cmc, mean_ap, mean_inp = mean_over_valid_queries(expected)
        np.testing.assert_allclose(metrics.cmc, cmc, atol=1e-14)
        assert (metrics.map, metrics.minp) == pytest.approx((mean_ap, mean_inp), abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(trial=trials())
def test_curves_never_fall_and_precisions_lie_in_the_unit_interval(trial):
    ranks = rank_queries(*trial)
    for values in (ranks.average_precision[ranks.valid], ranks.inverse_negative_penalty[ranks.valid]):
        assert ((values > 0) & (values <= 1)).all()
    if ranks.valid.any():
        cmc = summarise(ranks).cmc
        assert (np.diff(cmc) >= 0).all()
        # Five people at most: after rank 5 the curve repeats its last value, which is 1.
        assert (cmc[4:] == 1).all()
    matches = ((trial[1][:, None] == trial[2]) & ~trial[3]).sum(axis=1)
    one = matches == 1
    np.testing.assert_array_equal(ranks.average_precision[one], ranks.inverse_negative_penalty[one])


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_no_block_size_changes_a_number(block):
    trial = distinct_trial(3, queries=50)
    assert as_values(rank_queries(*trial, queries_per_block=block)) == as_values(rank_queries(*trial))


def test_the_order_of_the_queries_changes_no_metric():
    similarity, query_people, gallery_people, hidden = distinct_trial(0)
    order = np.random.default_rng(1).permutation(len(query_people))
    moved = rank_queries(similarity[order], query_people[order], gallery_people, hidden[order])
    assert_same_metrics(summarise(moved), summarise(rank_queries(similarity, query_people, gallery_people, hidden)))


def test_without_ties_the_order_of_the_gallery_changes_no_metric():
    similarity, query_people, gallery_people, hidden = distinct_trial(0)
    hidden[:, 3] = True
    order = np.random.default_rng(2).permutation(len(gallery_people))
    moved = rank_queries(similarity[:, order], query_people, gallery_people[order], hidden[:, order])
    assert_same_metrics(summarise(moved), summarise(rank_queries(similarity, query_people, gallery_people, hidden)))


def test_a_query_of_an_absent_person_changes_no_mean_and_is_counted():
    similarity, query_people, gallery_people, hidden = distinct_trial(0)
    metrics = summarise(rank_queries(similarity, query_people, gallery_people, hidden))
    more = summarise(
        rank_queries(
            np.vstack([similarity, similarity[:1]]),
            np.append(query_people, 99),
            gallery_people,
            np.vstack([hidden, hidden[:1]]),
        )
    )
    assert_same_metrics(more, metrics)
    assert (more.queries, more.valid_queries) == (metrics.queries + 1, metrics.valid_queries)


def test_person_rank_is_image_rank_when_every_person_has_one_image():
    similarity, query_people, _, hidden = distinct_trial(5, gallery=14, people=14)
    gallery_people = np.random.default_rng(0).permutation(14)
    by_person = rank_queries(similarity, query_people, gallery_people, hidden, rank_by="person")
    by_image = rank_queries(similarity, query_people, gallery_people, hidden, rank_by="image")
    np.testing.assert_array_equal(by_person.rank, by_image.rank)


@settings(max_examples=60, deadline=None)
@given(trial=trials(), data=st.data())
def test_a_second_copy_of_a_gallery_image_changes_no_curve(trial, data):
    similarity, query_people, gallery_people, hidden = trial
    twice = data.draw(st.integers(0, len(gallery_people) - 1))
    columns = np.insert(np.arange(len(gallery_people)), twice, twice)
    copied = rank_queries(similarity[:, columns], query_people, gallery_people[columns], hidden[:, columns])
    np.testing.assert_array_equal(copied.rank, rank_queries(*trial).rank)


def test_ranks_beyond_twenty_are_on_no_curve():
    # 30 people; the match of the first query is 20th, that of the second 21st.
    similarity = np.tile(-np.arange(30.0), (2, 1))
    ranks = rank_queries(similarity, np.array([19, 20]), np.arange(30), np.zeros((2, 30), dtype=bool))
    assert ranks.rank.tolist() == [20, 21]
    assert summarise(ranks).cmc.tolist() == [0.0] * 19 + [0.5]


def test_ranking_leaves_its_arguments_alone():
    trial = distinct_trial(0)
    before = [array.copy() for array in trial]
    rank_queries(*trial)
    for array, copy in zip(trial, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_trial_is_ranked_by_the_cosine_not_by_the_length():
    # The wrong image is long (dot product 30 against 1) but lies at 45 degrees; the right one lies on the query.
    metrics = rank_trial(
        np.array([[1.0, 0.0]], dtype=np.float32),
        np.array([[30.0, 30.0], [1.0, 0.0]], dtype=np.float32),
        query_people=np.array([1]),
        gallery_people=np.array([2, 1]),
        hidden=np.zeros((1, 2), dtype=bool),
    )
    assert (metrics.cmc[0], metrics.map) == (1.0, 1.0)


def test_no_valid_query_at_all_is_an_error_with_the_count():
    nothing = QueryRanks(np.zeros(4, np.int64), np.zeros(4), np.zeros(4), np.zeros(4, bool))
    with pytest.raises(DataError, match="none of 4 queries"):
        summarise(nothing)


def test_without_queries_there_is_nothing_to_rank():
    ranks = rank_queries(np.zeros((0, 3)), np.zeros(0, np.int64), np.array([1, 2, 1]), np.zeros((0, 3), dtype=bool))
    assert as_values(ranks) == []


def test_an_empty_gallery_is_an_error():
    with pytest.raises(DataError, match="gallery is empty"):
        rank_queries(np.zeros((2, 0)), np.array([1, 2]), np.zeros(0, np.int64), np.zeros((2, 0), dtype=bool))


@pytest.mark.parametrize(("bad", "problem"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zeros")])
def test_a_row_without_a_direction_is_named(bad, problem):
    features = np.ones((5, 3), dtype=np.float32)
    features[3] = bad
    with pytest.raises(DataError, match=rf"infrared features: row 3 \(cam3/0006/0004.jpg\).*{problem}; 1 of 5"):
        unit_rows(features, "infrared features", [f"cam3/0006/{number:04d}.jpg" for number in range(1, 6)])


def test_the_first_of_several_bad_rows_is_named():
    features = np.ones((5, 3), dtype=np.float32)
    features[4], features[1, 2] = 0.0, np.nan
    with pytest.raises(DataError, match=r"features: row 1 holds a value that is not finite; 2 of 5"):
        unit_rows(features, "features")


def test_unit_rows_have_length_one_also_where_float32_squares_overflow_or_vanish():
    features = np.array([[3e25, 4e25], [3e-25, 4e-25]], dtype=np.float32)
    units = unit_rows(features, "features")
    assert units.dtype == np.float32
    np.testing.assert_allclose(units, [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
