"""Flows as deployments run them: what goes wrong ends the run at once, and is told where the run is looked at."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State

from flows import deployments as deployed
from flows.deployments import preset_changes
from flows.terminal_runs import HOST_TAG
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import AnyConfig, digest_of, record_of
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError, RankError, TrackingError
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("prefect_backend")


def ended(flow: Flow[..., Any], parameters: dict[str, Any]) -> State[Any]:
    """The state that the flow ends in, as a worker's process gets it."""
    return flow.with_options(retry_delay_seconds=0)(**parameters, return_state=True)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative paths lead into the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("flow", "parameters", "message", "hint"),
    [
        (
            deployed.unsupervised,
            {
                "preset": "cclnet-sysu",
                "config": {"data": {"root": "/nowhere/SYSU-MM01"}, "execution": {"device": "cpu"}},
            },
            "/nowhere/SYSU-MM01",
            "folder",
        ),
        (deployed.unsupervised, {"preset": "cclnet-sysu"}, "no data set is named", "SYSU-MM01 is given out"),
        (deployed.unsupervised, {"preset": "csdn-sysu"}, "'csdn-sysu' is of method csdn", "deployment of the other"),
        (deployed.csdn, {"preset": "csdn-market"}, "there is no preset 'csdn-market'", "choose one of"),
        (deployed.eees, {"preset": "eees-sysu", "config": {"execution": {"device": "abacus"}}}, "'abacus'", "cpu"),
        (deployed.evaluate, {"run_folder": "absent"}, "absent holds no run", "config.json"),
        (deployed.evaluate, {"run_folder": "~/absent"}, f"{Path.home()}/absent holds no run", "config.json"),
    ],
    ids=["no data there", "no data named", "other method", "no preset", "no device", "no run", "no run at home"],
)
def test_an_error_ends_the_run_at_once_with_its_hint(
    flow: Flow[..., Any], parameters: dict[str, Any], message: str, hint: str
) -> None:
    state = ended(flow, parameters)
    assert state.is_failed() and state.message is not None
    said, _, hinted = state.message.partition("\nhint: ")
    assert message in said and hint in hinted
    identifier = state.state_details.flow_run_id
    assert identifier is not None
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(identifier)
        (page,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[identifier]))
        )
    assert run.run_count == 1
    assert [tag.startswith(HOST_TAG) for tag in run.tags] == [True]
    assert str(page.key).startswith("error-") and f"**Hint**: {hinted}" in str(page.data)


def changes_of(config: CclnetConfig) -> dict[str, Any]:
    return {"preset": "smoke", "config": config.model_dump(mode="json")}


@pytest.fixture
def two_rounds(smoke_config: CclnetConfig) -> CclnetConfig:
    """Of stage `prepare`."""
    return smoke_config.model_copy(update={"stages": smoke_config.stages.model_copy(update={"clip_rounds": 0})})


def test_a_transient_error_is_tried_again_although_it_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [TrackingError("MLflow is away", hint="wait"), RankError("rank 1 was killed", hint="wait")]

    def train(_: object) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(deployed, "train_as_tasks", train)
    state = ended(deployed.unsupervised, {"preset": "smoke"})
    assert state.is_completed() and errors == []


def test_a_transient_error_of_the_last_attempt_has_its_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(_: object) -> None:
        raise TrackingError("MLflow is away", hint="wait")

    monkeypatch.setattr(deployed, "train_as_tasks", train)
    state = ended(deployed.unsupervised, {"preset": "smoke"})
    assert state.is_failed() and state.message == "MLflow is away\nhint: wait"


def resolved(monkeypatch: pytest.MonkeyPatch, own: str, preset: str, changes: dict[str, Any]) -> AnyConfig:
    """The settings of a run that a deployment of preset `own` starts when its form is sent with these changes."""
    seen: list[AnyConfig] = []
    monkeypatch.setattr(deployed, "_preset_of_deployment", lambda: own)
    monkeypatch.setattr(deployed, "train_as_tasks", lambda config: seen.append(config))
    monkeypatch.setattr(deployed, "draw_demo_once", lambda: Path("demo"))
    form = preset_changes(own)
    for name, value in changes.items():
        form[name] = form[name] | value if isinstance(value, dict) else value
    assert ended(deployed.unsupervised, {"preset": preset, "config": form}).is_completed()
    return seen[0]


def test_a_changed_preset_alone_runs_that_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolved(monkeypatch, "demo", "cclnet-sysu", {})
    assert config == load_config("cclnet-sysu")
    config = resolved(monkeypatch, "cclnet-sysu", "demo", {"seed": 7, "data": {"root": "/own"}})
    assert config == load_config("demo", ("seed=7", "data.root=/own"))


def test_values_of_the_form_of_an_unchanged_preset_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolved(monkeypatch, "smoke", "smoke", {"stages": {"prepare_rounds": 9}, "data": {"root": "/own"}})
    assert config == load_config("smoke", ("stages.prepare_rounds=9", "data.root=/own"))


@pytest.mark.slow
def test_what_fails_without_a_hint_is_tried_again_and_goes_on(
    two_rounds: CclnetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = RunFolder.save_labels, list[int]()

    def lose_the_connection(folder: RunFolder, number: int, labels: Any) -> Path:
        calls.append(number)
        if calls == [1, 2]:
            raise ConnectionResetError("the network blinked")
        return save(folder, number, labels)

    monkeypatch.setattr(RunFolder, "save_labels", lose_the_connection)
    state = ended(deployed.unsupervised, changes_of(two_rounds))
    assert state.is_completed()
    assert calls == [1, 2, 2]
    identifier = state.state_details.flow_run_id
    assert identifier is not None
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(identifier)
        pages = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[identifier]))
        )
    assert (flow_run.name, flow_run.run_count) == (run_path(two_rounds).name, 2)
    # The table of each attempt, which its later rounds update, and the result.
    key = run_path(two_rounds).name
    assert sorted(page.key for page in pages if page.key) == [f"result-{key}", f"rounds-{key}", f"rounds-{key}"]
    assert max(str(page.data).count("| prepare |") for page in pages) == 2


def test_a_second_run_into_a_folder_ends_at_once_and_says_which_process_has_it(smoke_config: CclnetConfig) -> None:
    with RunFolder.open(run_path(smoke_config), record_of(smoke_config), digest_of(smoke_config)):
        state = ended(deployed.unsupervised, changes_of(smoke_config))
    assert state.is_failed()
    assert f"is in use by process {os.getpid()}\nhint: wait until that process ends" in str(state.message)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_next_attempt_goes_on(
    two_rounds: CclnetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(descriptor: int) -> None:
        if "round-002.npz" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        state = ended(deployed.unsupervised, changes_of(two_rounds))
    assert state.is_failed() and "No space left on device\nhint: free some space" in str(state.message)
    assert ended(deployed.unsupervised, changes_of(two_rounds)).is_completed()
    rows = (run_path(two_rounds) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["round"] for row in rows] == [1, 2]


def test_the_demonstration_is_shown_with_its_drawn_people_and_others_without_data() -> None:
    assert preset_changes("csdn-demo")["data"]["root"] == "data/drawn-demo"
    assert preset_changes("csdn-sysu")["data"]["root"] is None
    with pytest.raises(ConfigError, match="no preset"):
        preset_changes("csdn-market")
