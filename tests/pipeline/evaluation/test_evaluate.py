"""From features to reports: the right table for each side of a search, chance where it is due, and clear refusals."""

from dataclasses import dataclass

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.evaluate import evaluate_features, evaluate_trial
from pipeline.evaluation.protocol import RetrievalTrial, Search, Sightings
from pipeline.evaluation.ranking import TrialMetrics, rank_trial
from pipeline.evaluation.report import report_search
from tests.pipeline.evaluation.layout import random_features, small_layout, sysu_layout, trials_of


@dataclass
class Bank:
    vectors: np.ndarray


def features_that_know_people(tables):
    """One axis a person, the same in both modalities."""
    width = 1 + max(int(truth.ids.max()) for truth in tables.people)
    return tables.people.map(lambda truth: Bank(np.eye(width, dtype=np.float32)[truth.ids]))


def see_everything(query, gallery):
    return np.zeros((len(query.people), len(gallery.people)), dtype=bool)


def test_features_that_know_people_find_everybody_in_every_search():
    tables = small_layout()
    every, indoor = evaluate_features(features_that_know_people(tables), tables)
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
    (report,) = evaluate_features(random_features(tables, width=32, seed=4), tables, searches=("sysu/all",), trials=1)
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
    (report,) = evaluate_features(features, tables, searches=("sysu/indoor",), trials=3)
    sightings = tables.people.map_with(lambda truth, images: Sightings(truth.ids, images.cameras), tables.images)
    for trial, numbers in zip(trials_of(tables, "sysu/indoor", trials=3), report.trials, strict=True):
        alone = rank_trial(
            features.infrared.vectors[trial.query],
            features.visible.vectors[trial.gallery],
            query_people=sightings.infrared.people[trial.query],
            gallery_people=sightings.visible.people[trial.gallery],
            hidden=trial.hidden(sightings),
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
    assert evaluate_features(scaled, tables) == evaluate_features(features, tables)


def test_fewer_searches_and_trials_leave_the_others_numbers_as_they_are():
    tables = small_layout()
    features = random_features(tables, width=16, seed=3)
    every, indoor = evaluate_features(features, tables)
    assert evaluate_features(features, tables, searches=("sysu/indoor", "sysu/all")) == (indoor, every)
    (short,) = evaluate_features(features, tables, searches=("sysu/all",), trials=4)
    assert short.trials == every.trials[:4]


def test_a_trial_reads_queries_as_rows_and_never_transposes():
    # Visible people 1 1 2, infrared people 1 2. Visible queries: Rank-1 2/3, mAP 5/6; infrared ones: 1 and 11/12.
    sightings = PerModality(
        Sightings(np.array([1, 1, 2]), np.array([1, 1, 1])), Sightings(np.array([1, 2]), np.array([3, 3]))
    )
    visible_by_infrared = np.array([[0.9, 0.1], [0.2, 0.6], [0.3, 0.8]], dtype=np.float32)
    rows = PerModality(np.arange(3), np.arange(2))

    def run(query, similarity):
        search = Search("pairs", query, None, None, "person", see_everything)
        return evaluate_trial(RetrievalTrial(search, 0, rows[query], rows[query.other]), similarity, sightings)

    from_visible = run(Modality.VISIBLE, visible_by_infrared)
    assert (from_visible.cmc[0], from_visible.map) == pytest.approx((2 / 3, 5 / 6))
    from_infrared = run(Modality.INFRARED, visible_by_infrared.T.copy())
    assert (from_infrared.cmc[0], from_infrared.map) == pytest.approx((1, 11 / 12))
    with pytest.raises(IndexError):
        run(Modality.INFRARED, visible_by_infrared)


def test_means_and_deviations_are_over_trials():
    def trial(r1, precision):
        return TrialMetrics(np.array([r1] + [1.0] * 19), precision, precision / 2, 8, 10)

    search = Search("pairs", Modality.VISIBLE, None, None, "person", see_everything)
    report = report_search(search, [trial(0.5, 0.2), trial(0.7, 0.4), trial(0.6, 0.6)], gallery=5)
    assert report.mean.r1 == pytest.approx(0.6)
    assert (report.mean.r5, report.mean.r20) == (1.0, 1.0)
    assert (report.mean.map, report.mean.minp) == pytest.approx((0.4, 0.2))
    # Distances to the mean: .1 .1 0, squares sum to .02, over n - 1 = 2: .01, root .1. For mAP .2 .2 0: .2.
    assert (report.deviation.r1, report.deviation.map, report.deviation.minp) == pytest.approx((0.1, 0.2, 0.1))
    assert (report.queries, report.valid_queries, report.gallery) == (10, 8, 5)
    assert [one.trial for one in report.trials] == [0, 1, 2]


def test_one_trial_has_no_deviation():
    tables = small_layout()
    for report in evaluate_features(features_that_know_people(tables), tables, trials=1):
        assert report.deviation is None


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "not finite"), (0.0, "all zeros")])
def test_a_feature_without_a_direction_is_named_by_its_path(value, problem):
    tables = small_layout()
    features = features_that_know_people(tables)
    features.infrared.vectors[7] = value
    path = tables.images.infrared.paths[7]
    with pytest.raises(DataError, match=rf"infrared features: row 7 \({path}\).*{problem}"):
        evaluate_features(features, tables)


def test_features_of_other_images_are_refused_with_both_counts():
    tables = small_layout()
    features = features_that_know_people(tables)
    short = PerModality(Bank(features.visible.vectors[:-1]), features.infrared)
    images = len(tables.images.visible)
    with pytest.raises(DataError, match=f"{images - 1} visible features for {images} test images"):
        evaluate_features(short, tables)


def test_features_of_two_widths_are_refused():
    tables = small_layout()
    features = features_that_know_people(tables)
    narrow = PerModality(features.visible, Bank(features.infrared.vectors[:, 1:].copy()))
    with pytest.raises(DataError, match="visible features have 13 dimensions, infrared 12"):
        evaluate_features(narrow, tables)


def test_people_of_whom_nobody_is_in_the_gallery_are_an_error():
    tables = sysu_layout({(1, 1): 3, (2, 6): 3})
    with pytest.raises(DataError, match="none of 3 queries has a match"):
        evaluate_features(features_that_know_people(tables), tables, searches=("sysu/all",))


def test_an_unknown_search_is_refused():
    tables = small_layout()
    with pytest.raises(ConfigError, match="no search 'sysu'"):
        evaluate_features(features_that_know_people(tables), tables, searches=("sysu",))
