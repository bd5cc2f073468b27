"""The report as JSON: it survives the way there and back, the schema holds, and what is no report is refused."""

import json
from copy import deepcopy
from pathlib import Path

import jsonschema
import pytest

import pipeline.evaluation
from pipeline.errors import DataError
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.report import DataRecord, EvaluationReport, FeatureRecord, LastRound, ModelRecord
from pipeline.evaluation.searches import samples_of
from tests.pipeline.evaluation.layout import random_features, small_layout, trials_of

SCHEMA = json.loads((Path(pipeline.evaluation.__file__).parent / "evaluation.schema.json").read_text())
EXAMPLE = json.loads((Path(__file__).parents[2] / "golden" / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def report():
    tables = small_layout()
    samples = samples_of(tables)
    plans = [*trials_of(tables, "sysu/all", trials=3), *trials_of(tables, "sysu/indoor", trials=3)]
    results = evaluate_features(random_features(tables, width=16, seed=0), samples, plans, rerank="k_reciprocal")
    searches = tuple(result.report for result in results)
    return EvaluationReport(
        data=DataRecord(
            name="drawn",
            kind="drawn",
            split="train",
            trial=None,
            partial=False,
            overlap=True,
            file_list="sha256:00",
            visible=len(tables.images.visible),
            infrared=len(tables.images.infrared),
        ),
        model=ModelRecord("run", 3, "last", "random", "sha256:11", 1),
        features=FeatureRecord("neck", 16, "none", 288, 144),
        searches=searches,
        validation=searches[:1],
        last=LastRound(4, searches[1:]),
        warnings=("numbers of a random network",),
    )


def is_valid(record):
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(record)


def is_read(record):
    try:
        EvaluationReport.from_dict(record)
    except DataError:
        return False
    return True


def changed(keys, value):
    """The example with one value replaced; `...` removes it."""
    record = deepcopy(EXAMPLE)
    place = record
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return record


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_report_validates_and_survives_the_way_there_and_back(report):
    text = json.dumps(report.to_dict(), allow_nan=False)
    record = json.loads(text)
    jsonschema.validate(record, SCHEMA)
    assert EvaluationReport.from_dict(record) == report
    assert EvaluationReport.from_dict(report.to_dict()).to_dict() == report.to_dict()


def test_the_documented_example_is_read_and_written_unchanged():
    jsonschema.validate(EXAMPLE, SCHEMA)
    written = EvaluationReport.from_dict(EXAMPLE).to_dict()
    assert written == EXAMPLE
    assert list(written) == list(EXAMPLE)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("format",), 2),
        (("model", "seed"), ...),
        (("data", "kind"), "synthetic"),
        (("data", "folder"), "somewhere"),
        (("model", "selection"), "best"),
        (("features", "dim"), 0),
        (("features", "flip"), True),
        (("searches",), None),
        (("last",), {"round": 3}),
        (("data", "trial"), "one"),
        (("searches", 0, "exclude"), "camera"),
        (("searches", 0, "hidden_pairs"), -1),
        (("searches", 0, "trials"), []),
        (("searches", 0, "draw"), "random"),
        (("searches", 0, "direction"), "thermal_to_visible"),
        (("searches", 0, "mean", "r1"), 54.0),
        (("searches", 0, "mean", "map"), -0.1),
        (("searches", 0, "trials", 0, "cmc"), [0.5]),
        (("searches", 0, "deviation"), {"r1": 0.1}),
        (("searches", 0, "queries"), "many"),
    ],
)
def test_schema_and_reader_refuse_the_same_records(keys, value):
    record = changed(keys, value)
    assert not is_valid(record)
    assert not is_read(record)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("searches", 0, "draw"), None),
        (("searches", 0, "shots"), None),
        (("searches", 0, "rerank"), "k_reciprocal"),
        (("searches", 0, "rank_by"), "image"),
        (("searches", 0, "exclude"), "same_person_same_camera"),
        (("searches",), []),
        (("data", "trial"), 3),
        (("last",), {"round": 3, "searches": []}),
        (("warnings",), ["chosen on the test set"]),
        (("searches", 0, "deviation"), {"r1": 0.01, "map": 0.0, "minp": 0.02}),
        (("searches", 0, "mean", "r1"), 1),
    ],
)
def test_schema_and_reader_accept_the_same_records(keys, value):
    record = changed(keys, value)
    assert is_valid(record)
    assert is_read(record)


def test_a_refusal_names_the_place():
    with pytest.raises(DataError, match=r"searches\.0\.mean\.r1: .*less than or equal to 1$"):
        EvaluationReport.from_dict(changed(("searches", 0, "mean", "r1"), 54.0))


def test_the_headline_is_the_first_search_without_reranking():
    record = changed(("searches", 0, "rerank"), "k_reciprocal")
    record["searches"].append(
        deepcopy(EXAMPLE["searches"][0]) | {"mean": EXAMPLE["searches"][0]["mean"] | {"r1": 0.25}}
    )
    report = EvaluationReport.from_dict(record)
    assert (report.headline.r1, report.headline.map) == (0.25, 0.5)


def test_metrics_are_named_as_a_tracker_shows_them():
    metrics = EvaluationReport.from_dict(EXAMPLE).metrics()
    assert metrics["test/sysu/all/1-shot/agw/r1"] == 0.54
    assert {name.rsplit("/", 1)[1] for name in metrics} == {"r1", "r5", "r10", "r20", "map", "minp"}


def test_validation_has_a_name_of_its_own_and_stands_in_for_a_missing_test():
    record = changed(("validation",), EXAMPLE["searches"]) | {"searches": []}
    report = EvaluationReport.from_dict(record)
    assert report.metrics()["val/sysu/all/1-shot/agw/map"] == 0.5
    assert not [name for name in report.metrics() if name.startswith("test/")]
    assert report.headline.map == 0.5
