"""Runs are recorded in MLflow so that rounds can be compared, and a killed run is recorded once."""

import json
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import TrackingError
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import TrackingNote, read_note, write_note
from pipeline.tracking.tracker import SilentTracker, Tracker

CONFIG = {"seed": 1, "labelling": {"visible": {"eps": 0.6}}, "evaluation": {"searches": ["sysu/all", "sysu/indoor"]}}


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory) -> Path:
    """One store for all tests here: making its tables takes seconds."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def folder(runs_folder, request, monkeypatch) -> Iterator[RunFolder]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with RunFolder.open(runs_folder / request.node.name[:60], CONFIG, "aaaa") as run:
        yield run


@pytest.fixture
def tracker(runs_folder, folder) -> MlflowTracker:
    tracker = MlflowTracker(runs_folder, folder)
    tracker.start(CONFIG)
    return tracker


@pytest.fixture
def client(runs_folder) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{runs_folder}/mlflow.db")


def parent_id(folder: RunFolder) -> str:
    note = read_note(folder.path)
    assert note is not None
    return note.run_id


def children(client: MlflowClient, folder: RunFolder) -> list:
    parent = client.get_run(parent_id(folder))
    filter_string = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    found = client.search_runs([parent.info.experiment_id], filter_string)
    return sorted(found, key=lambda run: run.info.run_name)


def series(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_a_run_is_named_after_its_folder_and_holds_the_flat_configuration(tracker, folder, client):
    run = client.get_run(parent_id(folder))
    assert run.info.run_name == folder.path.name
    assert run.data.params == {
        "seed": "1",
        "labelling.visible.eps": "0.6",
        "evaluation.searches": '["sysu/all", "sysu/indoor"]',
    }
    assert run.data.tags["vireid.digest"] == "aaaa"
    saved = client.download_artifacts(run.info.run_id, "config.json")
    assert json.loads(Path(saved).read_text()) == CONFIG


def test_a_run_that_uses_cameras_has_a_tag(runs_folder, client, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = {"method": "cclnet", "memory": {"cameras": "proxies"}}
    with RunFolder.open(runs_folder / "cameras", config, "bbbb") as folder:
        MlflowTracker(runs_folder, folder).start(config)
        assert client.get_run(parent_id(folder)).data.tags["cameras used"] == "true"


def test_the_store_and_its_files_lie_beside_the_runs(tracker, folder, runs_folder, client):
    assert (runs_folder / "mlflow.db").is_file()
    artifacts = client.get_run(parent_id(folder)).info.artifact_uri
    assert Path(urlsplit(artifacts).path).parents[1] == runs_folder / "mlflow-artifacts"


def test_a_named_tracking_place_is_respected(folder, runs_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.invalid:5000")
    assert MlflowTracker(runs_folder, folder).uri == "http://tracking.invalid:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert MlflowTracker(runs_folder, folder).uri == f"sqlite:///{runs_folder}/mlflow.db"


def test_a_round_is_a_child_and_a_point_of_each_series(tracker, folder, client, tmp_path):
    figure = tmp_path / "curve.txt"
    figure.write_text("eps")
    tracker.round(1, {"train/loss/total": 2.5}, {"stage": "prepare", "epoch": 1})
    tracker.round(12, {"train/loss/total": 1.5, "test/sysu/all/1-shot/agw/r1": 0.5}, {"stage": "clip"}, [figure])
    first, twelfth = children(client, folder)
    assert (first.info.run_name, twelfth.info.run_name) == ("round-001", "round-012")
    assert (first.info.status, twelfth.info.status) == ("FINISHED", "FINISHED")
    assert first.data.params == {"stage": "prepare", "epoch": "1"}
    assert twelfth.data.metrics == {"train/loss/total": 1.5, "test/sysu/all/1-shot/agw/r1": 0.5}
    assert [entry.path for entry in client.list_artifacts(twelfth.info.run_id)] == ["curve.txt"]
    assert series(client, parent_id(folder), "train/loss/total") == [(1, 2.5), (12, 1.5)]
    assert series(client, parent_id(folder), "test/sysu/all/1-shot/agw/r1") == [(12, 0.5)]


def test_a_round_that_is_said_twice_is_recorded_once(tracker, folder, runs_folder, client):
    said = ({"labels/visible/clusters": 40.0, "odd": float("nan"), "endless": float("inf")}, {"stage": "prepare"})
    tracker.round(3, *said)
    tracker.round(3, *said)
    resumed = MlflowTracker(runs_folder, folder)
    resumed.start(CONFIG)
    resumed.round(3, *said)
    (only,) = children(client, folder)
    for run_id in (only.info.run_id, parent_id(folder)):
        assert series(client, run_id, "labels/visible/clusters") == [(3, 40.0)]
        for name in ("odd", "endless"):
            ((step, value),) = series(client, run_id, name)
            assert step == 3
            assert math.isnan(value)


@pytest.mark.parametrize("calls_before_the_kill", range(1, 7))
def test_a_round_whose_record_was_cut_short_anywhere_is_completed(
    runs_folder, folder, client, monkeypatch, calls_before_the_kill
):
    class Killed(BaseException):
        pass

    left = calls_before_the_kill

    def last_calls(name: str):
        whole = getattr(MlflowClient, name)

        def counted(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return whole(*args, **kwargs)

        return counted

    tracker = MlflowTracker(runs_folder, folder)
    tracker.start(CONFIG)
    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "log_artifact", "set_terminated"):
            patch.setattr(MlflowClient, name, last_calls(name))
        try:
            tracker.round(7, {"a": 1.0, "b": 2.0}, {"stage": "clip"}, [folder.path / "config.json"])
        except Killed:
            assert calls_before_the_kill < 6  # create, params, child's and parent's points, file, end
    resumed = MlflowTracker(runs_folder, folder)
    resumed.start(CONFIG)
    resumed.round(7, {"a": 1.0, "b": 2.0}, {"stage": "clip"}, [folder.path / "config.json"])
    (child,) = children(client, folder)
    assert (child.info.status, child.data.params) == ("FINISHED", {"stage": "clip"})
    assert [entry.path for entry in client.list_artifacts(child.info.run_id)] == ["config.json"]
    for run_id in (child.info.run_id, parent_id(folder)):
        assert [series(client, run_id, name) for name in ("a", "b")] == [[(7, 1.0)], [(7, 2.0)]]


def test_a_number_that_changed_when_its_round_was_repeated_is_shown_as_the_newer(tracker, folder, client):
    tracker.round(2, {"train/loss/total": 1.0}, {})
    tracker.round(2, {"train/loss/total": 1.25}, {})
    assert client.get_run(parent_id(folder)).data.metrics == {"train/loss/total": 1.25}
    (child,) = children(client, folder)
    assert child.data.metrics == {"train/loss/total": 1.25}


def test_a_resumed_run_goes_on_in_the_same_record(tracker, folder, runs_folder, client):
    tracker.round(1, {"a": 1.0}, {})
    tracker.finish("KILLED")
    before = parent_id(folder)
    assert client.get_run(before).info.status == "KILLED"
    resumed = MlflowTracker(runs_folder, folder)
    resumed.start(CONFIG)
    assert client.get_run(before).info.status == "RUNNING"
    resumed.round(2, {"a": 2.0}, {})
    resumed.finish("FINISHED")
    assert parent_id(folder) == before
    assert series(client, before, "a") == [(1, 1.0), (2, 2.0)]
    assert client.get_run(before).info.status == "FINISHED"


def test_a_run_whose_record_was_deleted_begins_a_new_one_and_says_so(tracker, folder, runs_folder, client, caplog):
    before = parent_id(folder)
    client.delete_run(before)
    with caplog.at_level(logging.WARNING):
        MlflowTracker(runs_folder, folder).start(CONFIG)
    assert "no longer has run" in caplog.text
    assert parent_id(folder) != before
    write_note(folder.path, TrackingNote("0" * 32, rounds=7))  # an identifier that this store never had
    MlflowTracker(runs_folder, folder).start(CONFIG)
    assert parent_id(folder) not in (before, "0" * 32)
    assert read_note(folder.path).rounds == 0, "the new record knows no round yet"


def test_starting_twice_does_nothing(tracker, folder):
    before = parent_id(folder)
    tracker.start({"seed": 2})
    assert parent_id(folder) == before


def test_rounds_can_be_recorded_from_several_threads(tracker, folder, client):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: tracker.round(number, {"a": float(number)}, {}), range(1, 5)))
    assert [child.info.run_name for child in children(client, folder)] == [f"round-00{n}" for n in range(1, 5)]
    assert sorted(series(client, parent_id(folder), "a")) == [(n, float(n)) for n in range(1, 5)]


def test_a_configuration_beyond_mlflows_limits_is_recorded(runs_folder, folder, client):
    config = {"many": {f"field_{number}": number for number in range(250)}, "long": "x" * 7000}
    MlflowTracker(runs_folder, folder).start(config)
    params = client.get_run(parent_id(folder)).data.params
    assert len(params) == 251
    assert params["long"] == "x" * 5999 + "…"


def test_the_comparison_page_names_every_round_in_order(tracker, folder, client):
    for number in (2, 1):
        tracker.round(number, {"a": 1.0}, {})
    url = tracker.compare_url("http://127.0.0.1:5000")
    assert url.startswith("http://127.0.0.1:5000/#/compare-runs?runs=")
    query = parse_qs(urlsplit(url).fragment.partition("?")[2])
    assert json.loads(query["runs"][0]) == [child.info.run_id for child in children(client, folder)]
    assert json.loads(query["experiments"][0]) == [client.get_experiment_by_name("vireid").experiment_id]


def test_a_store_that_does_not_answer_is_an_error_with_a_way_on(runs_folder, folder, monkeypatch):
    def refuse(*args: object) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", refuse)
    with pytest.raises(TrackingError, match="connection refused") as caught:
        MlflowTracker(runs_folder, folder).start(CONFIG)
    assert "execution.tracking=false" in caught.value.hint


def test_ending_a_run_raises_nothing(tracker, runs_folder, folder, monkeypatch, caplog):
    def refuse(*args: object) -> None:
        raise MlflowException("connection refused")

    MlflowTracker(runs_folder, folder).finish("FAILED")  # never started
    monkeypatch.setattr(MlflowClient, "set_terminated", refuse)
    with caplog.at_level(logging.WARNING):
        tracker.finish("FAILED")
    assert "connection refused" in caplog.text


def test_what_mlflow_says_at_the_end_of_a_run_is_kept_off_stdout(tracker, monkeypatch, capsys):
    def talkative(*args: object) -> None:
        print("View run at: http://alice:s3cr3t@host")  # noqa: T201 - what MLflow does when it talks to a server

    monkeypatch.setattr(MlflowClient, "set_terminated", talkative)
    tracker.finish("FINISHED")
    assert capsys.readouterr() == ("", "View run at: http://host\n")


def test_a_silent_tracker_answers_everything_and_keeps_nothing(tmp_path):
    tracker: Tracker = SilentTracker()
    assert not tracker.records
    tracker.start(CONFIG)
    tracker.round(1, {"a": 1.0}, {"stage": "clip"}, [tmp_path / "absent"])
    tracker.attach(tmp_path / "absent")
    tracker.finish("FINISHED")
    assert list(tmp_path.iterdir()) == []
