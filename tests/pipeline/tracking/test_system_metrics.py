"""How busy the machine is: sampled while a run is recorded, by a thread that ends with it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

from pipeline.errors import TrackingError
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking import system_metrics
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import read_note
from pipeline.tracking.system_metrics import SystemSampler, available_monitors
from pipeline.tracking.tracker import Numbers


class Thermometer(BaseMetricsMonitor):
    """Counts how often it is read."""

    reads = 0

    def collect_metrics(self) -> None:
        self.reads += 1
        self._metrics["temperature"].append(20 + self.reads)

    def aggregate_metrics(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self._metrics.items()}


def sampling_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "system-metrics"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert sampling_threads() == []


def test_samples_are_told_one_by_one_until_the_end() -> None:
    told: list[Numbers] = []
    three = threading.Event()

    def tell(numbers: Numbers) -> None:
        told.append(numbers)
        if len(told) == 3:
            three.set()

    sampler = SystemSampler(tell, [Thermometer()], interval_seconds=0.01)
    assert three.wait(300)
    sampler.stop()
    assert told[:3] == [{"system/temperature": 21}, {"system/temperature": 22}, {"system/temperature": 23}]
    assert sampling_threads() == []


def test_a_store_that_is_away_ends_neither_the_thread_nor_the_run() -> None:
    told: list[Numbers] = []
    heard = threading.Event()

    def tell(numbers: Numbers) -> None:
        told.append(numbers)
        if len(told) == 1:
            raise TrackingError("away", hint="")
        heard.set()

    sampler = SystemSampler(tell, [Thermometer()], interval_seconds=0.01)
    assert heard.wait(300)
    sampler.stop()


def test_a_run_that_ends_at_once_waits_for_no_sample() -> None:
    SystemSampler(lambda _: None, [Thermometer()], interval_seconds=3600).stop()


def test_the_parent_run_gets_them_and_no_round_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(SystemSampler.__init__, "__defaults__", (0.01,))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    with RunFolder.open(tmp_path / "run", {}, "aaaa") as folder:
        meter = Thermometer()
        tracker = MlflowTracker(tmp_path, folder, monitors=[meter])
        assert sampling_threads() == [], "nothing is measured before the record is begun"
        tracker.start({})
        tracker.round(1, {"a": 1.0}, {})
        note = read_note(folder.path)
        while "system/temperature" not in client.get_run(note.run_id).data.metrics:
            assert sampling_threads()
        tracker.finish("FINISHED")
    parent = client.get_run(note.run_id)
    (child,) = [run for run in client.search_runs([parent.info.experiment_id]) if run.info.run_id != note.run_id]
    assert set(parent.data.metrics) == {"a", "system/temperature"}
    assert set(child.data.metrics) == {"a"}
    steps = [point.step for point in client.get_metric_history(note.run_id, "system/temperature")]
    assert steps == sorted(steps) and 0 <= steps[0] < 300  # seconds since the record was begun


def test_without_psutil_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "find_spec", lambda _: None)
    assert available_monitors() == []


def test_this_machine_is_measured() -> None:
    pytest.importorskip("psutil", reason="psutil comes with the next set-up")
    told: list[Numbers] = []
    heard = threading.Event()

    def tell(numbers: Numbers) -> None:
        told.append(numbers)
        heard.set()

    sampler = SystemSampler(tell, available_monitors(), interval_seconds=0.01)
    assert heard.wait(300)
    sampler.stop()
    assert 0 < told[0]["system/system_memory_usage_percentage"] < 100
    assert "system/disk_usage_percentage" in told[0]
