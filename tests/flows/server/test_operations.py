"""Server, pool, worker and MLflow as `vireid server` starts them: a run outlives its worker, and pages show it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from mlflow import MlflowClient

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.runs.open import run_path
from tests.browser import CHROMIUM, chromium
from tests.flows.command_line import processes_with, vireid_command
from tests.flows.plain_runs import ROOT, run_plainly

PREPARE_ROUNDS = 4
"""Enough that the worker dies while there is something left to do."""

KILLED_AFTER = 2
ROUNDS = PREPARE_ROUNDS + 1

PATIENCE = 600
"""Seconds; less would make a busy machine a defect."""

CLOUD = ("Prefect Cloud", "Upgrade", "V2 UI")
"""Words of advertising."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What `vireid server` runs in a test's own folder."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    api: str
    pages: str
    log: Path

    def answer(self, path: str, query: dict[str, Any]) -> Any:
        """Prefect's answer to a query with the password. The query is repeated while the database is busy (503)."""
        auth = tuple(self.environment["PREFECT_API_AUTH_STRING"].split(":"))
        while (answer := httpx.post(f"{self.api}{path}", json=query, auth=auth, timeout=PATIENCE)).status_code == 503:
            time.sleep(0.5)
        assert answer.is_success, answer.text
        return answer.json()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in listeners]
    for one in listeners:
        one.close()
    return ports


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for as long as it takes: on a busy machine nobody knows; pytest's own limit ends what hangs."""
    while not condition():
        time.sleep(0.1)


@contextmanager
def serving(folder: Path, *, killed: bool = False) -> Iterator[Servers]:
    """Start everything, and afterwards end it and see that nothing is left."""
    port, mlflow_port = free_ports(2)
    api, log = f"http://127.0.0.1:{port}/api", folder / "vireid-server.log"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "PREFECT_LOGGING_LEVEL"):
        environment.pop(name, None)
    command = vireid_command(
        "server", "--port", str(port), "--mlflow-port", str(mlflow_port), "--runs", str(folder / "runs")
    )
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    try:
        wait_until(lambda: "ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        password = (folder / "runs" / "server" / "password").read_text().strip()
        environment |= {"PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": password}
        yield Servers(process, environment, api, f"http://127.0.0.1:{mlflow_port}", log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            left = processes_with(f"PREFECT_HOME={folder / 'prefect'}")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    assert left == {}
    assert process.returncode == (-signal.SIGKILL if killed else 0)


def smoke(data: Path, runs: Path) -> CclnetConfig:
    """What makes the demonstration small: the values of preset `smoke`, and a tiny random network."""
    values = {
        "model": {"architecture": "tiny", "weights": "random"},
        "stages": {"prepare_rounds": PREPARE_ROUNDS, "clip_rounds": 1},
        "data": {"root": str(data)},
        "execution": {"device": "cpu", "runs_folder": str(runs)},
    }
    config = load_config("smoke", ("evaluation.every=1", "evaluation.trials=2"), values)
    assert isinstance(config, CclnetConfig)
    return config


def finished_rounds(config: CclnetConfig) -> int:
    file = run_path(config) / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def started(servers: Servers, config: dict[str, Any], *options: str) -> subprocess.Popen[str]:
    """`prefect deployment run`, as a person types it."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", "unsupervised/demo", *options]
    command += ["--param", f"config={json.dumps(config)}"]
    return subprocess.Popen(
        command, env=servers.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def the_flow_run(servers: Servers) -> dict[str, Any]:
    (run,) = servers.answer("/flow_runs/filter", {})
    return dict(run)


def sent_by_the_form(deployment: dict[str, Any], config: CclnetConfig) -> dict[str, Any]:
    """Every value of the deployment's own preset, with what the user has changed."""
    changes = config.model_dump(mode="json", exclude_unset=True)
    return {
        name: value | changes.get(name, {}) if isinstance(value, dict) else changes.get(name, value)
        for name, value in deployment["parameters"]["config"].items()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
def test_a_run_whose_worker_is_killed_goes_on_after_its_last_round_and_its_pages_show_all(
    smoke_data: Path, tmp_path: Path
) -> None:
    config = smoke(smoke_data, tmp_path / "runs")
    with serving(tmp_path) as servers:
        assert_others_are_refused(servers)
        subprocess.run(
            vireid_command("deploy", "unsupervised/demo"),
            env=servers.environment,
            check=True,
            capture_output=True,
            cwd=tmp_path,
        )
        # A wrong parameter is refused before there is a run, with the field named.
        refused = started(servers, {"stages": {"prepare_rounds": -1}})
        answer = " ".join(refused.communicate(timeout=PATIENCE)[0].split())
        assert refused.returncode == 1
        assert "Validation failed for field 'config.stages.prepare_rounds'" in answer
        assert servers.answer("/flow_runs/filter", {}) == []

        (deployment,) = servers.answer("/deployments/filter", {})
        # Another preset than the deployment's own.
        watching = started(servers, sent_by_the_form(deployment, config), "--param", "preset=smoke", "--watch")
        wait_until(lambda: finished_rounds(config) >= KILLED_AFTER or watching.poll() is not None)
        mine = processes_with(f"PREFECT_HOME={tmp_path / 'prefect'}")
        of_the_run = mine.keys() & processes_with("PREFECT__FLOW_RUN_ID=").keys()
        assert of_the_run
        # The run stands still, so that it does not end before the next worker has found it.
        for pid in of_the_run:
            os.kill(pid, signal.SIGSTOP)
        (worker,) = (pid for pid, command in mine.items() if "prefect worker start" in command)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not of_the_run & processes_with("PREFECT__FLOW_RUN_ID=").keys())
        before = finished_rounds(config)
        assert KILLED_AFTER <= before < ROUNDS, "the worker was to be killed in the middle"

        output, _ = watching.communicate(timeout=PATIENCE)
        assert watching.returncode == 0, output
        assert "the worker ended by itself: restarting it" in servers.log.read_text()
        flow_run = the_flow_run(servers)
        assert (flow_run["state_type"], flow_run["run_count"]) == ("COMPLETED", 2)
        assert_tasks_are_of_their_attempts(servers, UUID(flow_run["id"]), before)
        assert_pages_show_all_rounds(servers, config)
        if CHROMIUM is None:
            warnings.warn("no page was looked at: there is no chromium (apt-get install chromium)", stacklevel=1)
        else:
            look_at_pages(servers, deployment, run_path(config).name, tmp_path)
    assert_mlflow_has_every_round_once(config)

    calm = config.model_copy(
        update={"execution": config.execution.model_copy(update={"runs_folder": tmp_path / "calm", "tracking": False})}
    )
    run_plainly(calm)
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (run_path(config) / name).read_bytes() == (run_path(calm) / name).read_bytes()


def assert_others_are_refused(servers: Servers) -> None:
    """Neither a page, nor another name of this machine, nor a program without the password."""
    password = servers.environment["PREFECT_API_AUTH_STRING"]
    own = tuple(password.split(":"))
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        for address in (f"{servers.api}/flows/filter", f"{servers.pages}/api/2.0/mlflow/experiments/search"):
            answer = httpx.post(address, json={}, headers=headers, auth=own, timeout=PATIENCE)
            assert 400 <= answer.status_code < 500, (address, headers)
            assert "access-control-allow-origin" not in answer.headers
    for auth in (None, ("vireid", "guessed")):
        assert httpx.post(f"{servers.api}/flows/filter", json={}, auth=auth, timeout=PATIENCE).status_code == 401
    without = servers.environment | {"PREFECT_API_AUTH_STRING": ""}
    done = subprocess.run(vireid_command("deploy", "unsupervised/demo"), env=without, capture_output=True, text=True)
    assert done.returncode == 1
    assert "refuses the password" in done.stderr and "Traceback" not in done.stderr
    logs = [servers.log, *(servers.log.parent / "runs" / "server").glob("*.log")]
    assert not [log for log in logs if password.partition(":")[2] in log.read_text()]


def assert_tasks_are_of_their_attempts(servers: Servers, flow_run: UUID, before: int) -> None:
    """Each round was finished once, and no task is said to be running still."""
    query = {"flow_runs": {"id": {"any_": [str(flow_run)]}}}
    tasks = servers.answer("/task_runs/filter", query)
    assert {task["state_type"] for task in tasks} <= {"COMPLETED", "CRASHED"}
    logged = sorted(
        task["name"] for task in tasks if task["name"].startswith("log-") and task["state_type"] == "COMPLETED"
    )
    # The checkpoint counts: a worker that died between that and the end of the task has finished the round.
    expected = [f"log-round-r{number:03d}" for number in range(1, ROUNDS + 1)]
    assert logged in (expected, [name for name in expected if name != f"log-round-r{before:03d}"])


def assert_pages_show_all_rounds(servers: Servers, config: CclnetConfig) -> None:
    """The last table of rounds is whole, and leads to the run in MLflow."""
    query = {"artifacts": {"key": {"any_": [f"rounds-{run_path(config).name}"]}}, "sort": "CREATED_DESC", "limit": 1}
    (page,) = servers.answer("/artifacts/filter", query)
    assert page["description"] == f"{ROUNDS} of {ROUNDS} rounds of smoke, seed 1"
    assert [f"| {number} |" in page["data"] for number in range(1, ROUNDS + 1)] == [True] * ROUNDS
    run_id = json.loads((run_path(config) / "tracking.json").read_text())["run_id"]
    query["artifacts"] = {"key": {"any_": [f"mlflow-run-{run_path(config).name}"]}}
    (link,) = servers.answer("/artifacts/filter", query)
    assert f"{servers.pages}/#/experiments/1/runs/{run_id}" in link["data"]
    assert the_flow_run(servers)["name"] == run_path(config).name


def look_at_pages(servers: Servers, deployment: dict[str, Any], run: str, folder: Path) -> None:
    """Password, form, run and rounds in Chromium: no request to another host, and no advertising."""
    address = servers.api.removesuffix("/api")
    with chromium(folder / "profile") as browser:
        browser.open(address)
        browser.wait("document.querySelector('input[type=password]')")
        assert "Authentication failed" not in browser.text
        browser.type("input[type=password]", servers.environment["PREFECT_API_AUTH_STRING"])
        browser.click("button[type=submit]", "Login")
        browser.wait_for_text("Dashboard")
        assert not [word for word in CLOUD if word in browser.text]

        browser.open(f"{address}/deployments/deployment/{deployment['id']}/run")
        browser.wait_for_text("Clustering, visible")
        for text in ("cclnet-regdb", "Gallery rules", "Data (Optional)"):
            assert text in browser.text

        browser.open(f"{address}/runs/flow-run/{the_flow_run(servers)['id']}")
        browser.wait_for_text(run)
        browser.click("button, a, li, .p-tab", "Artifacts")
        browser.wait_for_text(f"result-{run}")
        assert f"rounds-{run}" in browser.text and f"mlflow-run-{run}" in browser.text
        assert not [word for word in CLOUD if word in browser.text]

        link, *_ = servers.answer("/artifacts/filter", {"artifacts": {"key": {"like_": "mlflow-rounds-"}}})
        browser.open(link["data"].rpartition("(")[2].rstrip(")"))
        browser.wait(r"document.body && /Metrics:\s*rank1/.test(document.body.innerText)")  # the first number
        assert browser.outside() == [] and len(browser.requests) > 10


def assert_mlflow_has_every_round_once(config: CclnetConfig) -> None:
    """One parent, one child a round, one point a round in every series."""
    client = MlflowClient(tracking_uri=f"sqlite:///{config.execution.runs_folder / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [(run.info.run_name, run.info.status) for run in parents] == [(run_path(config).name, "FINISHED")]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(children) == len(runs) - 1
    expected = [(f"round-{number:03d}", "FINISHED") for number in range(1, ROUNDS + 1)]
    assert sorted((run.info.run_name, run.info.status) for run in children) == expected
    for series in ("train/loss/total", "seconds/total"):
        history = client.get_metric_history(parents[0].info.run_id, series)
        assert [point.step for point in history] == list(range(1, ROUNDS + 1))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
def test_a_killed_server_takes_all_its_programs_with_it(tmp_path: Path) -> None:
    def left() -> dict[int, str]:
        return processes_with(f"PREFECT_HOME={tmp_path / 'prefect'}")

    with serving(tmp_path, killed=True) as servers:
        assert any("worker start" in command for command in left().values())
        servers.process.kill()
        wait_until(lambda: left() == {})
