"""Ranks and their means: worked by hand, compared with a slow twin, and held to what must always be true."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clustering import parallel
from pipeline.errors import DataError
from pipeline.evaluation.ranking import QueryRanks, best_gallery, rank_queries, rank_trial, summarise, unit_rows
from tests.fresh_process import run_fresh
from tests.reference.ranking import (
    best_of_all_queries,
    chance_of_the_first_rank,
    mean_over_valid_queries,
    rank_all_queries,
)

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "rankings.json"
WORKED = json.loads(GOLDEN.read_text())["rankings"]


def hide(rule, queries, gallery):
    same_camera = queries[:, 1, None] == gallery[:, 1]
    same_person = queries[:, 0, None] == gallery[:, 0]
    match rule:
        case "same_room":
            return (queries[:, 1, None] == 3) & (gallery[:, 1] == 2)
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


def with_threads(monkeypatch, threads):
    """Let the kernels run in so many threads, and so in other blocks of queries."""
    monkeypatch.setattr(parallel, "num_threads", lambda: threads)


def random_trial(generator, queries, people, images_each, dtype=np.float32):
    """Everybody in the gallery equally often, in shuffled order; similarities that know nothing."""
    gallery_people = generator.permutation(np.repeat(np.arange(people), images_each))
    return (
        generator.standard_normal((queries, len(gallery_people))).astype(dtype),
        generator.integers(0, people, queries),
        gallery_people,
        generator.random((queries, len(gallery_people))) < 0.2,
    )


def assert_same_ranks(left, right):
    """Bit for bit."""
    for name in ("rank", "average_precision", "inverse_negative_penalty", "valid", "matches", "shown", "excluded"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


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
    assert left.chance_r1 == pytest.approx(right.chance_r1, abs=1e-12)


@pytest.mark.parametrize("case", WORKED, ids=[case["name"] for case in WORKED])
def test_a_ranking_worked_by_hand_gives_its_fractions(case):
    queries, gallery = np.array(case["queries"]), np.array(case["gallery"])
    similarity = np.array(case["similarity"])
    excluded = hide(case["hidden"], queries, gallery)
    ranks = rank_queries(similarity, queries[:, 0], gallery[:, 0], excluded, rank_by=case["rank_by"])
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


@settings(max_examples=120, deadline=None)
@given(trial=trials(), rank_by=st.sampled_from(["person", "image"]))
def test_ranking_agrees_with_the_loops_under_any_mask(trial, rank_by):
    expected = rank_all_queries(*trial, rank_by)
    ranks = rank_queries(*trial, rank_by=rank_by)
    for found, wanted in zip(as_values(ranks), expected, strict=True):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            assert found == pytest.approx(wanted, abs=1e-14)
    if any(expected):
        metrics = summarise(ranks)
        cmc, mean_ap, mean_inp = mean_over_valid_queries(expected)
        np.testing.assert_allclose(metrics.cmc, cmc, atol=1e-14)
        assert (metrics.map, metrics.minp) == pytest.approx((mean_ap, mean_inp), abs=1e-14)
        assert metrics.chance_r1 == pytest.approx(chance_of_the_first_rank(*trial[1:]), abs=1e-14)
        assert metrics.hidden_pairs == np.count_nonzero(trial[3])


@pytest.mark.parametrize("rank_by", ["person", "image"])
@pytest.mark.parametrize(("dtype", "decimals"), [(np.float16, 9), (np.float32, 9), (np.float64, 9), (np.float64, 1)])
def test_long_lists_with_many_matches_agree_with_the_loops(rank_by, dtype, decimals):
    # 320 images of 5 people: about 51 matches a query. Float16, and one decimal, bring ties with others.
    similarity, *rest = random_trial(np.random.default_rng(1), 20, people=5, images_each=64)
    trial = (similarity.round(decimals).astype(dtype), *rest)
    found = as_values(rank_queries(*trial, rank_by=rank_by))
    for one, wanted in zip(found, rank_all_queries(*trial, rank_by), strict=True):
        assert one == pytest.approx(wanted, abs=1e-13)


def test_similarities_of_64_bits_are_not_rounded():
    # The match is 1e-12 nearer, and second in the gallery: in 32 bits the two would be a tie.
    similarity = np.array([[1.0, 1.0 + 1e-12]])
    excluded = np.zeros((1, 2), dtype=bool)
    assert rank_queries(similarity, np.array([1]), np.array([2, 1]), excluded).rank.tolist() == [1]
    assert best_gallery(similarity, excluded).tolist()[0][:2] == [1, 0]


def test_the_counts_of_matches_and_of_shown_images_leave_hidden_ones_out():
    # Query of person 1; gallery 1 1 2 1 3, of which the second (a match) and the last are excluded.
    excluded = np.array([[False, True, False, False, True]])
    ranks = rank_queries(np.zeros((1, 5)), np.array([1]), np.array([1, 1, 2, 1, 3]), excluded)
    assert (ranks.matches.tolist(), ranks.shown.tolist(), ranks.excluded.tolist()) == ([2], [3], [2])
    # Two of the three images shown are matches, and a random order begins with each equally often.
    metrics = summarise(ranks)
    assert (metrics.hidden_pairs, metrics.chance_r1) == (2, 2 / 3)


def test_a_query_without_a_match_has_zeros_and_still_counts_what_it_is_shown():
    # Person 2's only image is excluded, person 9 has none.
    excluded = np.array([[False, True], [False, False]])
    ranks = rank_queries(np.ones((2, 2)), np.array([2, 9]), np.array([1, 2]), excluded)
    for values in (ranks.rank, ranks.average_precision, ranks.inverse_negative_penalty, ranks.valid, ranks.matches):
        assert values.tolist() == [0, 0]
    assert ranks.shown.tolist() == [1, 2]


def test_a_random_order_finds_the_right_person_first_as_often_as_chance_says():
    metrics = summarise(rank_queries(*random_trial(np.random.default_rng(0), 4000, people=20, images_each=3)))
    standard_error = np.sqrt(metrics.chance_r1 * (1 - metrics.chance_r1) / metrics.valid_queries)
    assert abs(metrics.cmc[0] - metrics.chance_r1) < 4 * standard_error
    # Three of sixty images are matches, a little more or less where some are excluded.
    assert metrics.chance_r1 == pytest.approx(0.05, abs=0.005)


@settings(max_examples=40, deadline=None)
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


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_changes_no_bit(threads, monkeypatch):
    trial = random_trial(np.random.default_rng(2), 101, people=6, images_each=9)
    expected, listed = rank_queries(*trial), best_gallery(trial[0], trial[3])
    with_threads(monkeypatch, threads)
    assert_same_ranks(rank_queries(*trial), expected)
    np.testing.assert_array_equal(best_gallery(trial[0], trial[3]), listed)


@pytest.mark.parametrize("queries_at_once", [1, 7, 1000])
def test_ranking_queries_apart_changes_no_bit(queries_at_once):
    similarity, query_people, gallery_people, excluded = trial = random_trial(np.random.default_rng(3), 50, 6, 9)
    together = rank_queries(*trial)
    for start in range(0, 50, queries_at_once):
        part = slice(start, start + queries_at_once)
        alone = rank_queries(similarity[part], query_people[part], gallery_people, excluded[part])
        for name in ("rank", "average_precision", "inverse_negative_penalty", "valid", "matches", "shown"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[part], err_msg=name)


@settings(max_examples=40, deadline=None)
@given(trial=trials(), data=st.data())
def test_a_gallery_that_is_some_columns_ranks_like_a_copy_of_them(trial, data):
    similarity, query_people, _, _ = trial
    columns = np.array(data.draw(st.lists(st.integers(0, similarity.shape[1] - 1), min_size=1)), dtype=np.int64)
    gallery_people = data.draw(arrays.arrays(np.int64, len(columns), elements=st.integers(0, 4)))
    excluded = data.draw(arrays.arrays(np.bool_, (len(similarity), len(columns))))
    copied = similarity[:, columns]
    assert_same_ranks(
        rank_queries(similarity, query_people, gallery_people, excluded, columns=columns),
        rank_queries(copied, query_people, gallery_people, excluded),
    )
    np.testing.assert_array_equal(best_gallery(similarity, excluded, columns), best_gallery(copied, excluded))


@pytest.mark.parametrize("columns", [[0, 3], [-1, 0], [0, 1, 2]])
def test_columns_that_are_not_there_are_never_read(columns):
    excluded = np.zeros((1, 2), dtype=bool)
    with pytest.raises((AssertionError, TypeError)):  # the third is of another length, which the annotations refuse
        rank_queries(np.zeros((1, 3)), np.array([1]), np.array([1, 2]), excluded, columns=np.array(columns))


def test_similarities_in_any_memory_layout_rank_alike():
    similarity, *rest = random_trial(np.random.default_rng(4), 30, people=6, images_each=9)
    expected = rank_queries(similarity, *rest)
    wider = np.concatenate([similarity, similarity], axis=1)
    for same in (np.asfortranarray(similarity), wider[:, : similarity.shape[1]]):
        assert not same.flags.c_contiguous
        assert_same_ranks(rank_queries(same, *rest), expected)
    excluded = np.asfortranarray(rest[2])
    assert_same_ranks(rank_queries(similarity, *rest[:2], excluded), expected)


@settings(max_examples=60, deadline=None)
@given(trial=trials(), count=st.integers(1, 14))
def test_the_best_images_are_those_of_a_sorted_list(trial, count):
    similarity, _, _, excluded = trial
    assert best_gallery(similarity, excluded, count=count).tolist() == best_of_all_queries(similarity, excluded, count)


def test_the_best_images_leave_out_what_is_hidden_and_end_with_minus_one():
    # .9 is excluded; of the two equal ones the first in the gallery leads.
    similarity, excluded = np.array([[0.5, 0.9, 0.7, 0.5]]), np.array([[False, True, False, False]])
    assert best_gallery(similarity, excluded, count=5).tolist() == [[2, 0, 3, -1, -1]]
    assert best_gallery(similarity, excluded, count=2).tolist() == [[2, 0]]


def test_ranking_needs_no_torch():
    program = (
        "import sys\n"
        "import pipeline.evaluation.ranking, pipeline.evaluation.reranking\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    run_fresh(program)


def test_the_order_of_the_queries_changes_no_metric():
    similarity, query_people, gallery_people, excluded = distinct_trial(0)
    order = np.random.default_rng(1).permutation(len(query_people))
    moved = rank_queries(similarity[order], query_people[order], gallery_people, excluded[order])
    assert_same_metrics(summarise(moved), summarise(rank_queries(similarity, query_people, gallery_people, excluded)))


def test_without_ties_the_order_of_the_gallery_changes_no_metric():
    similarity, query_people, gallery_people, excluded = distinct_trial(0)
    excluded[:, 3] = True
    order = np.random.default_rng(2).permutation(len(gallery_people))
    moved = rank_queries(similarity[:, order], query_people, gallery_people[order], excluded[:, order])
    assert_same_metrics(summarise(moved), summarise(rank_queries(similarity, query_people, gallery_people, excluded)))


def test_a_query_of_an_absent_person_changes_no_mean_and_is_counted():
    similarity, query_people, gallery_people, excluded = distinct_trial(0)
    metrics = summarise(rank_queries(similarity, query_people, gallery_people, excluded))
    more = summarise(
        rank_queries(
            np.vstack([similarity, similarity[:1]]),
            np.append(query_people, 99),
            gallery_people,
            np.vstack([excluded, excluded[:1]]),
        )
    )
    assert_same_metrics(more, metrics)
    assert (more.queries, more.valid_queries) == (metrics.queries + 1, metrics.valid_queries)


def test_person_rank_is_image_rank_when_every_person_has_one_image():
    similarity, query_people, _, excluded = distinct_trial(5, gallery=14, people=14)
    gallery_people = np.random.default_rng(0).permutation(14)
    by_person = rank_queries(similarity, query_people, gallery_people, excluded, rank_by="person")
    by_image = rank_queries(similarity, query_people, gallery_people, excluded, rank_by="image")
    np.testing.assert_array_equal(by_person.rank, by_image.rank)


@settings(max_examples=40, deadline=None)
@given(trial=trials(), data=st.data())
def test_a_second_copy_of_a_gallery_image_changes_no_curve(trial, data):
    similarity, query_people, gallery_people, excluded = trial
    twice = data.draw(st.integers(0, len(gallery_people) - 1))
    columns = np.insert(np.arange(len(gallery_people)), twice, twice)
    copied = rank_queries(similarity[:, columns], query_people, gallery_people[columns], excluded[:, columns])
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
        excluded=np.zeros((1, 2), dtype=bool),
    )
    assert (metrics.cmc[0], metrics.map) == (1.0, 1.0)


def test_no_valid_query_at_all_is_an_error_with_the_count():
    zeros = np.zeros(4, np.int64)
    nothing = QueryRanks(zeros, np.zeros(4), np.zeros(4), np.zeros(4, bool), zeros, zeros, zeros)
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
