"""From features to reports: the right table for each side of a search, chance where it is due, and clear refusals."""

from dataclasses import dataclass

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import evaluate as evaluate_module
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocol import RetrievalTrial, Samples, Search
from pipeline.evaluation.ranking import TrialMetrics, rank_trial
from pipeline.evaluation.report import report_search
from pipeline.evaluation.searches import plan_search, samples_of
from tests.pipeline.evaluation.layout import random_features, small_layout, sysu_layout, trials_of


@dataclass
class Bank:
    vectors: np.ndarray


def features_that_know_people(tables):
    """One axis a person, the same in both modalities."""
    width = 1 + max(int(truth.ids.max()) for truth in tables.people)
    return tables.people.map(lambda truth: Bank(np.eye(width, dtype=np.float32)[truth.ids]))


def evaluate(features, tables, searches=("sysu/all", "sysu/indoor"), trials=10, **options):
    """Reports of the searches named."""
    plans = [plan for search in searches for plan in trials_of(tables, search, trials=trials)]
    return tuple(result.report for result in evaluate_features(features, samples_of(tables), plans, **options))


def test_features_that_know_people_find_everybody_in_every_search():
    tables = small_layout()
    every, indoor = evaluate(features_that_know_people(tables), tables)
    assert (every.name, indoor.name) == ("sysu/all/1-shot/agw", "sysu/indoor/1-shot/agw")
    for report in (every, indoor):
        assert (report.mean.r1, report.mean.map, report.mean.minp) == (1.0, 1.0, 1.0)
        assert report.deviation.r1 == 0.0
    # People 1 to 3 were in no room: their images, 12 + 14 + 10 of cameras 3 and 6, are queries without a match.
    assert every.valid_queries == every.queries == indoor.queries == len(tables.images.infrared)
    assert indoor.queries - indoor.valid_queries == 2 * (5 + 1) + 2 * (5 + 2) + 2 * 5


def test_random_features_score_as_chance_does():
    # Thirty people, one gallery image and 20 queries each. A random ranking puts the match at a uniform position:
    # Rank-1 is 1/30, Rank-10 is 1/3, and AP = INP = 1/position has the mean H(30)/30.
    people = range(1, 31)
    tables = sysu_layout({(person, 1): 1 for person in people} | {(person, 6): 20 for person in people})
    (report,) = evaluate(random_features(tables, width=32, seed=4), tables, searches=("sysu/all",), trials=1)
    harmonic = sum(1 / position for position in people) / 30
    for found, value in (
        (report.mean.r1, 1 / 30),
        (report.mean.r10, 1 / 3),
        (report.mean.map, harmonic),
        (report.mean.minp, harmonic),
    ):
        assert found == pytest.approx(value, abs=4 * (value * (1 - value) / 600) ** 0.5)


def test_one_matrix_gives_what_ranking_each_gallery_by_itself_gives():
    tables = small_layout()
    features = random_features(tables, width=16, seed=1)
    (report,) = evaluate(features, tables, searches=("sysu/indoor",), trials=3)
    samples = samples_of(tables)
    for trial, numbers in zip(trials_of(tables, "sysu/indoor", trials=3)[0], report.trials, strict=True):
        alone = rank_trial(
            features.infrared.vectors[trial.query],
            features.visible.vectors[trial.gallery],
            query_people=samples.infrared.people[trial.query],
            gallery_people=samples.visible.people[trial.gallery],
            excluded=trial.excluded(samples),
        )
        assert numbers.cmc == tuple(alone.cmc)
        assert (numbers.map, numbers.minp) == pytest.approx((alone.map, alone.minp), abs=1e-12)


def test_lengths_of_features_change_nothing():
    tables = small_layout()
    features = random_features(tables, width=16, seed=2)
    # Powers of two, so that not even rounding differs.
    scaled = features.map(
        lambda bank: Bank(bank.vectors * 2.0 ** (np.arange(len(bank.vectors)) % 5)[:, None].astype(np.float32))
    )
    assert evaluate(scaled, tables) == evaluate(features, tables)


def test_fewer_searches_and_trials_leave_the_others_numbers_as_they_are():
    tables = small_layout()
    features = random_features(tables, width=16, seed=3)
    every, indoor = evaluate(features, tables)
    assert evaluate(features, tables, searches=("sysu/indoor", "sysu/all")) == (indoor, every)
    (short,) = evaluate(features, tables, searches=("sysu/all",), trials=4)
    assert short.trials == every.trials[:4]


def test_a_trial_reads_queries_as_rows_and_never_transposes():
    # Visible people 1 1 2, infrared people 1 2. Visible queries: Rank-1 2/3, mAP 5/6; infrared ones: 1 and 11/12.
    samples = PerModality(
        Samples(np.array([1, 1, 2]), np.array([1, 1, 1])), Samples(np.array([1, 2]), np.array([3, 3]))
    )
    # Features whose inner products are these similarities: a unit vector an infrared image, and rows of the matrix.
    visible_by_infrared = np.array([[0.9, 0.1], [0.2, 0.6], [0.3, 0.8]])
    features = PerModality(Bank(visible_by_infrared), Bank(np.eye(2)))

    def run(direction):
        (plan,) = plan_search(f"regdb/{direction}", samples)
        return evaluate_features(features, samples, [plan], normalise=False)[0].report

    from_visible = run("visible_to_infrared")
    assert (from_visible.queries, from_visible.gallery) == (3, 2)
    assert (from_visible.mean.r1, from_visible.mean.map) == pytest.approx((2 / 3, 5 / 6))
    from_infrared = run("infrared_to_visible")
    assert (from_infrared.queries, from_infrared.gallery) == (2, 3)
    assert (from_infrared.mean.r1, from_infrared.mean.map) == pytest.approx((1, 11 / 12))


def test_means_and_deviations_are_over_trials():
    def trial(r1, precision):
        return TrialMetrics(np.array([r1] + [1.0] * 19), precision, precision / 2, 8, 10, hidden_pairs=3, chance_r1=0.1)

    search = Search("pairs", Modality.VISIBLE, "agw", 1, "person", "none")
    plan = [RetrievalTrial(search, number, np.arange(10), np.arange(5)) for number in range(3)]
    report = report_search(plan, [trial(0.5, 0.2), trial(0.7, 0.4), trial(0.6, 0.6)])
    assert report.mean.r1 == pytest.approx(0.6)
    assert (report.mean.r5, report.mean.r20) == (1.0, 1.0)
    assert (report.mean.map, report.mean.minp) == pytest.approx((0.4, 0.2))
    # Distances to the mean: .1 .1 0, squares sum to .02, over n - 1 = 2: .01, root .1. For mAP .2 .2 0: .2.
    assert (report.deviation.r1, report.deviation.map, report.deviation.minp) == pytest.approx((0.1, 0.2, 0.1))
    assert (report.queries, report.valid_queries, report.gallery) == (10, 8, 5)
    assert [one.trial for one in report.trials] == [0, 1, 2]


def test_one_trial_has_no_deviation():
    tables = small_layout()
    for report in evaluate(features_that_know_people(tables), tables, trials=1):
        assert report.deviation is None


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "not finite"), (0.0, "all zeros")])
def test_a_feature_without_a_direction_is_named_by_its_path(value, problem):
    tables = small_layout()
    features = features_that_know_people(tables)
    features.infrared.vectors[7] = value
    path = tables.images.infrared.paths[7]
    with pytest.raises(DataError, match=rf"infrared features: row 7 \({path}\).*{problem}"):
        evaluate(features, tables)


def test_features_of_other_images_are_refused_with_both_counts():
    tables = small_layout()
    features = features_that_know_people(tables)
    short = PerModality(Bank(features.visible.vectors[:-1]), features.infrared)
    images = len(tables.images.visible)
    with pytest.raises(DataError, match=f"{images - 1} visible features for {images} test images"):
        evaluate(short, tables)


def test_features_of_two_widths_are_refused():
    tables = small_layout()
    features = features_that_know_people(tables)
    narrow = PerModality(features.visible, Bank(features.infrared.vectors[:, 1:].copy()))
    with pytest.raises(DataError, match="visible features have 13 dimensions, infrared 12"):
        evaluate(narrow, tables)


def test_people_of_whom_nobody_is_in_the_gallery_are_an_error():
    tables = sysu_layout({(1, 1): 3, (2, 6): 3})
    with pytest.raises(DataError, match="none of 3 queries has a match"):
        evaluate(features_that_know_people(tables), tables, searches=("sysu/all",))


def test_an_unknown_search_is_refused():
    tables = small_layout()
    with pytest.raises(ConfigError, match="no search 'sysu'"):
        evaluate(features_that_know_people(tables), tables, searches=("sysu",))


@pytest.mark.parametrize("block_bytes", [1, 4 * 7 * 20, 2**30])
def test_numbers_do_not_depend_on_how_many_queries_are_compared_at_once(monkeypatch, block_bytes):
    tables = small_layout()
    features = random_features(tables, width=16, seed=5).map(lambda bank: Bank(bank.vectors.astype(np.float64)))
    expected = evaluate(features, tables, trials=2)
    monkeypatch.setattr(evaluate_module, "BLOCK_BYTES", block_bytes)
    for report, other in zip(evaluate(features, tables, trials=2), expected, strict=True):
        for one, same in zip(report.trials, other.trials, strict=True):
            assert (one.map, one.minp, *one.cmc) == pytest.approx((same.map, same.minp, *same.cmc), abs=1e-9)


def test_every_draw_and_number_of_shots_is_a_search_of_its_own():
    tables = small_layout()
    plans = trials_of(tables, "sysu/all", trials=2, shots=(1, 3))
    results = evaluate_features(features_that_know_people(tables), samples_of(tables), plans)
    assert [(one.report.name, one.report.gallery) for one in results] == [
        # Twelve people in four visible cameras, three of them in two: 42 folders of five images and more.
        ("sysu/all/1-shot/agw", 42),
        ("sysu/all/3-shot/agw", 126),
    ]


def test_what_each_query_found_is_kept_on_request():
    tables = small_layout()
    plans = trials_of(tables, "sysu/all", trials=2)
    features, samples = features_that_know_people(tables), samples_of(tables)
    (result,) = evaluate_features(features, samples, plans, keep_queries=True)
    assert len(result.queries) == 2
    one = result.queries[1]
    assert one.best.shape == (len(tables.images.infrared), 10)
    # The best image shows the query's own person: features are one axis a person.
    assert np.array_equal(samples.visible.people[one.best[:, 0]], samples.infrared.people)
    assert set(one.best.ravel()) <= set(one.trial.gallery)
    assert evaluate_features(features, samples, plans)[0].queries == ()


def test_re_ranked_numbers_are_entries_of_their_own_after_the_others():
    tables = small_layout()
    plain = evaluate(random_features(tables, width=16, seed=6), tables, trials=2)
    both = evaluate(random_features(tables, width=16, seed=6), tables, trials=2, rerank="k_reciprocal")
    assert both[:2] == plain
    assert [report.rerank for report in both] == [None, None, "k_reciprocal", "k_reciprocal"]
    assert both[2].name == "sysu/all/1-shot/agw/k_reciprocal"
    assert both[2].hidden_pairs == plain[0].hidden_pairs


def test_hidden_pairs_and_chance_are_reported():
    # Person 1: a query in camera 3, gallery in cameras 1 and 2; person 2: gallery in camera 1.
    tables = sysu_layout({(1, 3): 1, (1, 1): 1, (1, 2): 1, (2, 1): 1})
    (report,) = evaluate(features_that_know_people(tables), tables, searches=("sysu/all",), trials=1)
    # Camera 2 is excluded from camera 3: one of three pairs. Of the two images left, one is right.
    assert (report.hidden_pairs, report.chance_r1, report.exclude) == (1, 0.5, "same_room")


def test_a_model_at_chance_is_told_from_one_that_has_learned():
    people = range(1, 31)
    tables = sysu_layout({(person, 1): 1 for person in people} | {(person, 6): 20 for person in people})
    (blind,) = evaluate(random_features(tables, width=32, seed=4), tables, searches=("sysu/all",), trials=1)
    (seeing,) = evaluate(features_that_know_people(tables), tables, searches=("sysu/all",), trials=1)
    assert blind.near_chance
    assert not seeing.near_chance
