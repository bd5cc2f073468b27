"""A real MLflow server that is killed and started again in the middle of a run, and once more before its end."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.config.cclnet import CclnetConfig
from pipeline.runs.open import run_path
from pipeline.runs.record import RunRecord
from pipeline.runtime.processes import kill_group
from pipeline.tracking.replay import read_note
from tests.flows.command_line import Call
from tests.flows.plain_runs import run_plainly
from tests.flows.test_round_figures import with_execution


class Server:
    """`mlflow server` on this machine, over a store in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as place:
            self.port = place.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it together with the processes that it started."""
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_misses_nothing(
    smoke_config: CclnetConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    vireid: Call,
) -> None:
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    config = with_execution(smoke_config, tracking=True, keep_checkpoints="all", log_checkpoints=True)
    folder, known = run_path(config), {}
    publish = RunRecord.publish

    def published(record: RunRecord, state) -> None:
        publish(record, state)
        note = read_note(folder)
        assert note is not None
        known[state.completed] = note.rounds
        match state.completed:
            case 1 | 4:
                server.kill()
            case 2:
                server.start()

    monkeypatch.setattr(RunRecord, "publish", published)
    try:
        server.start()
        with caplog.at_level(logging.INFO):
            report = run_plainly(config)
        said = [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]
        # Round 2 was told together with round 3; the end of the run was not.
        assert known == {0: 0, 1: 1, 2: 1, 3: 3, 4: 4}
        assert [("the run continues" in line) for line in said].count(True) == 2
        assert [("answers again" in line) for line in said].count(True) == 1
        note = read_note(folder)
        assert note is not None and note.ended is None
        server.start()
        code, out, _ = vireid("runs", "sync", "--runs", str(folder.parent))
        assert (code, out) == (0, f"{folder}: 4 of 4 rounds in MLflow\n")
        assert report is not None
        assert_complete(MlflowClient(tracking_uri=server.uri), note.run_id, report.headline.map)
        code, out, _ = vireid("runs", "sync", "--runs", str(folder.parent))
        assert (code, out) == (0, f"no run in {folder.parent} has an incomplete MLflow record\n")
    finally:
        server.kill()


def assert_complete(client: MlflowClient, run_id: str, result: float) -> None:
    """One point a round of every series, one child a round, the files of the run, its models."""
    parent = client.get_run(run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/sysu/all/1-shot/agw/map"] == pytest.approx(result)
    for name in ("train/loss/total", "test/sysu/all/1-shot/agw/map", "seconds/total"):
        assert [point.step for point in client.get_metric_history(run_id, name)] == [1, 2, 3, 4]
    runs = client.search_runs([parent.info.experiment_id])
    children = {run.info.run_name: run for run in runs if run.info.run_id != run_id}
    assert len(runs) == 5 and set(children) == {f"round-{number:03d}" for number in range(1, 5)}
    for name, child in children.items():
        assert child.info.status == "FINISHED"
        assert {item.path for item in client.list_artifacts(child.info.run_id)} == {f"{name}.npz", f"{name}.pt"}
    files = {item.path for item in client.list_artifacts(run_id)}
    assert files == {"config.json", "environment.json", "evaluation.json", "checkpoint.pt"}
    models = {"vireid-smoke", "vireid-smoke-visible", "vireid-smoke-infrared"}
    assert {model.name for model in client.search_registered_models()} == models
    assert all(len(client.search_model_versions(f"name = '{model}'")) == 1 for model in models)
