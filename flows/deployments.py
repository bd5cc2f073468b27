"""The flows as deployments run them: a preset, the changes to it, and every error with its hint.

They bear the names of the flows that the command line starts, and run the same rounds.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.context import FlowRunContext
from prefect.states import Failed
from pydantic import BaseModel

from flows.artifacts import reported, show_error
from flows.csdn import run_person_rounds
from flows.demo_data import DEMO_DATA, draw_demo_once
from flows.distributed import run_body
from flows.eees import run_caption_rounds
from flows.evaluate import measure_run
from flows.partial_config import ChangesTo, changed_values
from flows.unsupervised import run_rounds
from pipeline.config.csdn import CsdnConfig
from pipeline.config.eees import EeesConfig
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_changed, load_config
from pipeline.config.shared import ExperimentConfig
from pipeline.errors import ConfigError, VireidError
from pipeline.evaluation.report import EvaluationReport

HOST_TAG = "host:"
"""A tag of this beginning names the machine that a flow run is on."""

RETRIES = 2
"""Of a flow that failed for a reason of nobody's making; an error with a hint would only repeat itself."""

RETRY_SECONDS = 30


@flow(
    name="unsupervised",
    flow_run_name="{preset}",
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def unsupervised(
    preset: str = "demo",
    config: Annotated[BaseModel | None, ChangesTo(ExperimentConfig)] = None,
) -> EvaluationReport | State[Any] | None:
    """Train without identities; an interrupted run of the same settings goes on after its last finished round.

    Args:
        preset: Where every value comes from that `config` does not name.
        config: The settings, or only those that differ from the preset.
    """
    return _guarded(lambda: run_body(run_rounds, _resolve(preset, config, "cclnet")))


@flow(
    name="csdn",
    flow_run_name="{preset}",
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def csdn(
    preset: str = "csdn-demo",
    config: Annotated[BaseModel | None, ChangesTo(CsdnConfig)] = None,
) -> EvaluationReport | State[Any] | None:
    """Train with identities; an interrupted run of the same settings goes on after its last finished round.

    Args:
        preset: Where every value comes from that `config` does not name.
        config: The settings, or only those that differ from the preset.
    """
    return _guarded(lambda: run_body(run_person_rounds, _resolve(preset, config, "csdn")))


@flow(
    name="eees",
    flow_run_name="{preset}",
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def eees(
    preset: str = "eees-demo",
    config: Annotated[BaseModel | None, ChangesTo(EeesConfig)] = None,
) -> EvaluationReport | State[Any] | None:
    """Train with identities and captions; an interrupted run of the same settings goes on after its last round.

    Args:
        preset: Where every value comes from that `config` does not name.
        config: The settings, or only those that differ from the preset.
    """
    return _guarded(lambda: run_body(run_caption_rounds, _resolve(preset, config, "eees")))


@flow(
    name="evaluate",
    flow_run_name="{run_folder.name}",
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def evaluate(
    run_folder: Path,
    data_root: Path | None = None,
    device: str = "auto",
    trial: int | None = None,
    features_file: Path | None = None,
    queries_file: Path | None = None,
) -> EvaluationReport | State[Any] | None:
    """Measure a run again: its last finished round, or the round that was chosen as its result.

    Args:
        run_folder: The folder of a run with at least one finished round.
        data_root: Where the data set lies now; none takes the place that the run recorded.
        device: `auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`.
        trial: The split of RegDB to test on; only the one that the run was trained on is accepted.
        features_file: An .npz file to write the features of the test images to.
        queries_file: An .npz file to write what each query found to.
    """
    return _guarded(lambda: measure_run(run_folder, data_root, device, trial, features_file, queries_file))


def preset_changes(preset: str) -> dict[str, Any]:
    """Every value of a preset, as the form of a deployment shows them; the demonstration's with its drawn data.

    Raises:
        ConfigError: There is no such preset.
    """
    config = load_config(preset)
    values: dict[str, Any] = config.model_dump(mode="json")
    if _is_demonstration(preset):
        values["data"]["root"] = str(DEMO_DATA)
    return values


def _resolve(preset: str, changes: BaseModel | None, method: str) -> AnyConfig:
    """The experiment that a deployment was asked for.

    Raises:
        ConfigError: The preset is of another method, or does not exist, or settings contradict each other.
    """
    config = load_changed(preset, changed_values(changes))
    if config.method != method:
        raise ConfigError(
            f"preset {preset!r} is of method {config.method}; this deployment trains by {method}",
            hint="choose a preset of this method, or the deployment of the other one",
        )
    root = config.data.root
    if root == DEMO_DATA or (root is None and _is_demonstration(preset)):
        return config.model_copy(update={"data": config.data.model_copy(update={"root": draw_demo_once()})})
    return config


def _is_demonstration(preset: str) -> bool:
    return preset.rpartition("-")[2] == "demo"


def _guarded(work: Callable[[], EvaluationReport | None]) -> EvaluationReport | State[Any] | None:
    """Run the work with its reports; an error with a hint ends the flow run at once, and both can be read there."""
    with _on_this_host(), reported():
        try:
            return work()
        except VireidError as error:
            show_error(error)
            _forbid_retries()
            return Failed(message=f"{error.message}\nhint: {error.hint}")


@contextmanager
def _on_this_host() -> Iterator[None]:
    """Say in the flow run's tags on which machine it is: what is left over there is looked for there only."""
    flow_run = _context().flow_run
    assert flow_run is not None, "a flow that runs has a flow run"
    kept = [tag for tag in flow_run.tags if not tag.startswith(HOST_TAG)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=[*kept, HOST_TAG + socket.gethostname()])
    yield


def _forbid_retries() -> None:
    flow_run = _context().flow_run
    assert flow_run is not None, "a flow that runs has a flow run"
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, empirical_policy=FlowRunPolicy(retries=0, retry_delay=0))


def _context() -> FlowRunContext:
    context = FlowRunContext.get()
    assert context is not None, "called by a flow"
    return context
