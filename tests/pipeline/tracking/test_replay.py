"""A tracker that stops answering costs a run nothing: it is told later what it missed, once."""

import errno
import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.errors import CheckpointError, TrackingError
from pipeline.runs import record as run_record
from pipeline.runs.record import RunRecord
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking import store
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import TrackingNote, read_note, write_note
from pipeline.tracking.sync import sync_run, unsynced_runs
from pipeline.tracking.tracker import SilentTracker
from tests.pipeline.reports.recorded_runs import begin_run, make_run, row


class Moody(SilentTracker):
    """Remembers what it is told in the folder's note, as MLflow's tracker does, while it is not `away`."""

    records = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.away = False
        self.told: list[int] = []
        self.attempts = 0
        write_note(folder.path, TrackingNote("a"))

    def round(self, number: int, *_: Any) -> None:
        self.attempts += 1
        if self.away:
            raise TrackingError("MLflow is away", hint="wait")
        self.told.append(number)
        write_note(self.folder.path, TrackingNote("a", rounds=number))

    def compare_url(self, _: str) -> None:
        """None."""

    table_url = compare_url


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk makes an attempt long, and the next one wait."""
    monkeypatch.setattr(run_record, "_clock", lambda: 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with begin_run(tmp_path / "run", []) as folder:
        yield folder


def after(number: int) -> Any:
    """The part of a state that is published after a round."""
    rows = [row(one) | {"train/loss/infinite": math.inf} for one in range(1, number + 1)]
    return SimpleNamespace(completed=number, metrics=rows, timings=[{"search": "exact", "seconds/total": 2.5}] * number)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_what_was_missed_is_told_in_order_and_both_is_said_once(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Moody(folder)
    record = RunRecord(folder, tracker)
    with caplog.at_level(logging.INFO):
        record.publish(after(1))
        tracker.away = True
        for number in (2, 3):
            record.publish(after(number))
        assert warnings_of(caplog) == [
            "MLflow is away; the run continues, and MLflow receives the missing rounds when it answers (wait)"
        ]
        tracker.away = False
        record.publish(after(4))
    assert tracker.told == [1, 2, 3, 4]
    assert [one.getMessage() for one in caplog.records if "again" in one.getMessage()] == [
        "MLflow answers again, and has received the missing rounds"
    ]


def test_an_attempt_that_took_long_is_not_repeated_at_once_but_at_the_end(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(run_record, "_clock", lambda: now[0])
    tracker = Moody(folder)
    tracker.away = True
    record = RunRecord(folder, tracker)
    real = tracker.round

    def slow(*given: Any) -> None:
        now[0] += 60
        real(*given)

    monkeypatch.setattr(tracker, "round", slow)
    record.publish(after(1))  # at 60 s it has failed: the next attempt comes 600 s later
    for moment, attempts in ((61.0, 1), (659.0, 1), (660.0, 2)):
        now[0] = moment
        record.publish(after(2))
        assert tracker.attempts == attempts
    record.finish(None)
    assert tracker.attempts == 3


def test_a_run_that_ends_unheard_says_what_hands_it_over(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Moody(folder)
    tracker.away = True
    record = RunRecord(folder, tracker)
    record.publish(after(1))
    record.finish(None)
    assert warnings_of(caplog)[-1] == f"MLflow misses a part of this run: `vireid runs sync {folder.path}` sends it"


def test_going_back_to_a_kept_checkpoint_tells_the_rounds_after_it_again(folder: RunFolder) -> None:
    tracker = Moody(folder)
    record = RunRecord(folder, tracker)
    record.publish(after(4))
    record.publish(after(2))
    record.publish(after(3))
    assert tracker.told == [1, 2, 3, 4, 3]


def test_a_full_store_is_an_outage_and_leaves_no_gap_and_no_duplicate(
    tmp_path: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    figure = folder.save_figure(2, "eps-curve", lambda file: file.writelines([b"png"]))
    tracker = MlflowTracker(tmp_path, folder)
    tracker.start({})
    record = RunRecord(folder, tracker)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    record.publish(after(1))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", full)
        record.publish(after(2))
        record._pause_until = -math.inf
        record.publish(after(3))
    (said,) = warnings_of(caplog)
    assert "No space left on device; the run continues" in said
    assert read_note(folder.path) is not None and read_note(folder.path).rounds == 1
    record._pause_until = -math.inf
    record.publish(after(4))
    note = read_note(folder.path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    parent = client.get_run(note.run_id)
    children = [run for run in client.search_runs([parent.info.experiment_id]) if run.info.run_id != note.run_id]
    assert sorted(run.info.run_name for run in children) == ["round-001", "round-002", "round-003", "round-004"]
    (second,) = [run for run in children if run.info.run_name == "round-002"]
    assert [item.path for item in client.list_artifacts(second.info.run_id)] == [figure.name]
    for name in ("train/loss/total", "seconds/total", "train/loss/infinite"):
        points = client.get_metric_history(note.run_id, name)
        assert [point.step for point in points] == [1, 2, 3, 4], name
    assert math.isnan(points[0].value)


def test_a_server_that_is_not_there_is_an_error_at_once(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    tracker = MlflowTracker(tmp_path, folder)
    with pytest.raises(TrackingError, match="Connection refused") as caught:
        tracker.start({})
    assert "execution.tracking=false" in caught.value.hint
    assert read_note(folder.path) is None


@pytest.mark.parametrize(
    ("uri", "proxies", "knocks"),
    [
        ("http://host:81/x", {}, [("host", 81)]),
        ("https://host", {}, [("host", 443)]),
        ("http://host", {"http": "http://proxy"}, []),
        ("sqlite:////folder/mlflow.db", {}, []),
        ("postgresql+psycopg2://u:p@host/db", {}, [("host", 5432)]),
    ],
)
def test_only_servers_without_a_proxy_are_knocked_at(
    monkeypatch: pytest.MonkeyPatch, uri: str, proxies: Mapping[str, str], knocks: Sequence[tuple[str, int]]
) -> None:
    heard: list[tuple[str, int]] = []

    def connect(place: tuple[str, int], timeout: float) -> socket.socket:
        heard.append(place)
        return socket.socket()

    monkeypatch.setattr(store, "getproxies", lambda: dict(proxies))
    monkeypatch.setattr(store, "proxy_bypass", lambda _: False)
    monkeypatch.setattr(store.socket, "create_connection", connect)
    store.check_reachable(uri)
    assert heard == list(knocks)


def test_syncing_records_a_run_from_what_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    done = make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    half = make_run(tmp_path / "half", [row(1)], "seed=2")
    assert list(unsynced_runs(tmp_path)) == [], "runs that were never recorded are recorded by name only"
    for path, status, rounds in ((done, "FINISHED", 2), (half, "KILLED", 1)):
        assert sync_run(path).rounds == rounds
        note = read_note(path)
        assert (note.ended, note.rounds) == (status, rounds)
        assert client.get_run(note.run_id).info.status == status
    before = read_note(done).run_id
    for lacking in (TrackingNote(before), TrackingNote(before, rounds=1, ended="FINISHED")):
        write_note(done, lacking)
        assert list(unsynced_runs(tmp_path)) == [done]
        sync_run(done)
    assert list(unsynced_runs(tmp_path)) == []
    points = client.get_metric_history(before, "test/sysu/all/1-shot/agw/r1")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.375)]


def test_models_wait_in_the_folder_for_a_tracker_that_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(tmp_path / "done", [row(1), row(2)])
    write_note(path, TrackingNote("a", rounds=2, ended="KILLED"))
    model = path / "unregistered" / "visible"
    model.mkdir(parents=True)
    with RunFolder.reopen(path) as folder:
        RunRecord(folder, SilentTracker()).finish(None)
        assert model.is_dir(), "nothing has registered it"
        assert list(unsynced_runs(tmp_path)) == []  # the run is open
        registered: list[Path] = []
        tracker = Moody(folder)
        monkeypatch.setattr(tracker, "register", registered.append)
        RunRecord(folder, tracker).finish(None)
    assert registered == [model]
    assert not (path / "unregistered").exists()


def test_a_finished_run_whose_record_ended_otherwise_lacks_its_end(tmp_path: Path) -> None:
    path = make_run(tmp_path / "done", [row(1), row(2)])
    half = make_run(tmp_path / "half", [row(1)], "seed=2")
    for run, rounds in ((path, 2), (half, 1)):
        write_note(run, TrackingNote("a", rounds=rounds, ended="KILLED", store="http://elsewhere"))
    assert list(unsynced_runs(tmp_path)) == [path]


def test_with_tracking_off_no_earlier_round_is_read_again(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[int] = []
    monkeypatch.setattr(RunFolder, "round_files", lambda _, number: listed.append(number) or [])
    record = RunRecord(folder, SilentTracker())
    for number in range(1, 5):
        record.publish(after(number))
    record.finish(None)
    assert listed == []


def test_a_run_that_is_being_trained_is_not_synced(tmp_path: Path) -> None:
    with begin_run(tmp_path / "busy", [row(1)]) as folder:
        write_note(folder.path, TrackingNote("a"))
        assert list(unsynced_runs(tmp_path)) == []
        with pytest.raises(CheckpointError):
            sync_run(folder.path)
