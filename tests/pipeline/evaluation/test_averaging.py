"""The mean over RegDB's splits: a model a split, named as published tables are only when all ten are there."""

import json
from dataclasses import replace

import numpy as np
import pytest

from models.modality import Modality
from pipeline.errors import DataError
from pipeline.evaluation.protocol import RetrievalTrial, Search
from pipeline.evaluation.ranking import TrialMetrics
from pipeline.evaluation.report import (
    DataRecord,
    EvaluationReport,
    FeatureRecord,
    ModelRecord,
    average_reports,
    report_search,
)

DIRECTIONS = {"infrared_to_visible": Modality.INFRARED, "visible_to_infrared": Modality.VISIBLE}


def report_of(trial, r1=0.5, directions=tuple(DIRECTIONS), rerank=None):
    """The report of a model of one split: Rank-1, and from it mAP and mINP, of each direction."""

    def search(direction):
        kind = Search(f"regdb/split-{trial}/{direction}", DIRECTIONS[direction], None, None, "image", "none")
        one = RetrievalTrial(kind, trial or 0, np.arange(10), np.arange(20))
        numbers = r1 if direction == "infrared_to_visible" else r1 / 2
        metrics = TrialMetrics(np.array([numbers] * 4 + [1.0] * 16), numbers / 2, numbers / 4, 10, 10, 0, 0.1)
        return report_search([one], [metrics], rerank)

    return EvaluationReport(
        data=DataRecord("regdb", "licensed", "train", trial, False, False, "sha256:00", 20, 10),
        model=ModelRecord(f"run-of-{trial}", 9, "last", "openai", "sha256:11", 1),
        features=FeatureRecord("neck", 8, "none", 288, 144),
        searches=tuple(map(search, directions)),
    )


def test_numbers_are_means_over_models_and_deviations_are_over_splits():
    average = average_reports([report_of(1, 0.2), report_of(2, 0.4), report_of(3, 0.9)])
    to_visible, to_infrared = average.searches
    # (.2 + .4 + .9) / 3 = .5. Distances -.3 -.1 .4: squares .09 .01 .16 sum to .26, over 2: .13.
    assert to_visible.mean.r1 == pytest.approx(0.5)
    assert (to_visible.mean.r5, to_visible.mean.map, to_visible.mean.minp) == pytest.approx((1.0, 0.25, 0.125))
    assert to_visible.deviation.r1 == pytest.approx(0.13**0.5)
    assert (to_visible.deviation.map, to_visible.deviation.minp) == pytest.approx((0.13**0.5 / 2, 0.13**0.5 / 4))
    assert to_infrared.mean.r1 == pytest.approx(0.25)
    assert [trial.trial for trial in to_visible.trials] == [1, 2, 3]
    assert [trial.cmc[0] for trial in to_visible.trials] == [0.2, 0.4, 0.9]
    assert (to_visible.queries, to_visible.gallery, to_visible.rank_by) == (10, 20, "image")


def test_warnings_of_the_splits_are_kept_once():
    reports = [replace(report_of(split), warnings=("cameras used",)) for split in (1, 2)]
    assert average_reports(reports).warnings == ("cameras used",)


def test_ten_splits_have_the_name_that_published_tables_use():
    average = average_reports([report_of(trial) for trial in range(1, 11)])
    assert [search.name for search in average.searches] == [f"regdb/{direction}" for direction in DIRECTIONS]
    assert [search.direction for search in average.searches] == list(DIRECTIONS)
    assert average.splits == tuple(range(1, 11))


@pytest.mark.parametrize(
    ("splits", "name"), [((1, 3), "splits-1,3"), ((7,), "splits-7"), (range(1, 10), "splits-1,2,3,4,5,6,7,8,9")]
)
def test_fewer_splits_are_named_one_by_one(splits, name):
    average = average_reports([report_of(trial) for trial in splits])
    assert [search.name for search in average.searches] == [f"regdb/{name}/{direction}" for direction in DIRECTIONS]


def test_one_split_has_no_deviation():
    average = average_reports([report_of(4, 0.3)])
    assert average.searches[0].deviation is None
    assert average.searches[0].mean == report_of(4, 0.3).searches[0].mean


def test_the_order_in_which_models_come_changes_nothing():
    reports = [report_of(trial, trial / 10) for trial in (10, 2, 9, 1)]
    average = average_reports(reports)
    assert average.splits == (1, 2, 9, 10)
    assert average.runs == ("run-of-1", "run-of-2", "run-of-9", "run-of-10")
    assert average == average_reports(reports[::-1])


def test_reranked_numbers_are_averaged_apart():
    def both(trial):
        plain, again = report_of(trial, 0.2), report_of(trial, 0.6, rerank="k_reciprocal")
        return EvaluationReport(plain.data, plain.model, plain.features, (*plain.searches, *again.searches))

    searches = average_reports([both(1), both(2)]).searches
    assert [(search.name, search.rerank, search.mean.r1) for search in searches] == [
        ("regdb/splits-1,2/infrared_to_visible", None, pytest.approx(0.2)),
        ("regdb/splits-1,2/visible_to_infrared", None, pytest.approx(0.1)),
        ("regdb/splits-1,2/infrared_to_visible/k_reciprocal", "k_reciprocal", pytest.approx(0.6)),
        ("regdb/splits-1,2/visible_to_infrared/k_reciprocal", "k_reciprocal", pytest.approx(0.3)),
    ]


@pytest.mark.parametrize(
    ("splits", "found"),
    [((1, 2, 1), "1, 2, 1"), ((3, 3), "3, 3"), ((), "none"), ((None, 2), "None, 2"), ((None,), "None")],
)
def test_a_split_that_is_missing_or_there_twice_is_refused(splits, found):
    with pytest.raises(DataError, match=f"results of the splits {found} cannot be averaged"):
        average_reports([report_of(trial) for trial in splits])


@pytest.mark.parametrize("other", [("visible_to_infrared",), ("visible_to_infrared", "infrared_to_visible"), ()])
def test_results_of_different_searches_are_refused_and_the_split_is_named(other):
    reports = [report_of(1), report_of(2, directions=other), report_of(3)]
    with pytest.raises(
        DataError, match="different searches: regdb/infrared_to_visible, regdb/visible_to_infrared in split 1"
    ) as caught:
        average_reports(reports)
    assert caught.value.message.endswith(f"{', '.join(f'regdb/{name}' for name in other) or 'none'} in split 2")


def test_an_average_is_plain_json():
    record = average_reports([report_of(1), report_of(3)]).to_dict()
    assert next(iter(record)) == "format"
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again == record
    assert (record["format"], record["splits"], record["runs"]) == (2, [1, 3], ["run-of-1", "run-of-3"])
    assert record["searches"][0]["name"] == "regdb/splits-1,3/infrared_to_visible"
