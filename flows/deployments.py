"""The flows, one a method, for the command line and for deployments alike; and the flow that evaluates a run again."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.context import FlowRunContext
from prefect.states import Failed
from pydantic import BaseModel

from flows.artifacts import reported, show_error
from flows.demo_data import DEMO_DATA, draw_demo_once
from flows.distributed import train_as_tasks
from flows.partial_config import ChangesTo, changed_values
from flows.prefect_local import cancelled_if_stopped
from flows.tasks import measure_again
from pipeline.config.experiment import AnyConfig, method_name
from pipeline.config.presets import load_config, validate_config
from pipeline.errors import ConfigError, VireidError
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods import METHODS, MethodSpec, method_of
from pipeline.runs.open import reopen_run

HOST_TAG = "host:"
"""A tag of this beginning names the machine that a flow run is on."""

RETRIES = 2
"""Of a deployed flow that failed by an unknown or a transient error; others would only repeat themselves."""

RETRY_SECONDS = 30


def flow_of(method: MethodSpec) -> Flow[..., Any]:
    """The flow that trains by a method: `flows.deployments.unsupervised` for CCLNet, else named after the method."""
    settings = method.config

    def train(
        preset: str | None = settings.demo_preset,
        config: Annotated[BaseModel | None, ChangesTo(settings)] = None,
    ) -> EvaluationReport | State[Any] | None:
        changes = changed_values(config)
        return _guarded(lambda: train_as_tasks(_resolve(preset, changes, settings)))

    train.__doc__ = f"""Train {settings.summary}; an interrupted run of the same settings goes on.

    Args:
        preset: Where every value comes from that `config` does not name; with none, `config` names them all.
        config: The settings, or only those that differ from the preset.
    """
    return flow(
        name=settings.flow,
        flow_run_name="{preset}",
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=RETRY_SECONDS,
    )(train)


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
    split: int | None = None,
    features_file: Path | None = None,
    queries_file: Path | None = None,
) -> EvaluationReport | State[Any] | None:
    """Measure a run again: its last finished round, or the round that was chosen as its result.

    Args:
        run_folder: The folder of a run with at least one finished round.
        data_root: Where the data set is now; none takes the place that the run recorded.
        device: `auto` takes a GPU where there is one; `cpu`, `cuda`, `cuda:1`.
        split: The split of RegDB to test on; only the one that the run was trained on is accepted.
        features_file: An .npz file to write the features of the test images to.
        queries_file: An .npz file to write what each query found to.
    """

    def work() -> EvaluationReport:
        with reopen_run(run_folder, method_of, data_root=data_root, device=device, split=split) as (run, evaluator):
            return measure_again(run, evaluator, features_file, queries_file)

    return _guarded(work)


FLOWS: Mapping[str, Flow[..., Any]] = {method.config.flow: flow_of(method) for method in METHODS} | {
    "evaluate": evaluate
}
"""Every flow by its name."""


def __getattr__(name: str) -> Flow[..., Any]:
    """Flows as deployments name them: `flows.deployments.unsupervised`."""
    if name not in FLOWS:
        raise AttributeError(name)
    return FLOWS[name]


def at_terminal(name: str, run_name: str | None = None) -> Flow[..., Any]:
    """A flow for a person at a terminal: errors are raised at once, and Ctrl-C cancels the flow run."""
    chosen = FLOWS[name]
    run_name = run_name or str(chosen.flow_run_name)
    return chosen.with_options(flow_run_name=run_name, retries=0, on_crashed=[cancelled_if_stopped])


def train(config: AnyConfig) -> EvaluationReport | None:
    """Run the flow of the settings' method from a terminal, to its end."""
    values = {"method": config.method} | config.model_dump(mode="json", exclude_unset=True)
    report: EvaluationReport | None = at_terminal(config.flow, config.name)(preset=None, config=values)
    return report


def preset_changes(preset: str) -> dict[str, Any]:
    """Every value of a preset, as the form of a deployment shows them; the demo's with its synthetic data.

    Raises:
        ConfigError: There is no such preset.
    """
    config = load_config(preset)
    values: dict[str, Any] = config.model_dump(mode="json")
    if preset == config.demo_preset:
        values["data"]["root"] = str(DEMO_DATA)
    return values


def _resolve(preset: str | None, changes: Mapping[str, Any], settings: type[AnyConfig]) -> AnyConfig:
    """The experiment that a flow run was started with.

    Raises:
        ConfigError: The preset is of another method, or does not exist, or settings contradict each other.
    """
    config = validate_config(changes) if preset is None else load_config(preset, values=changes)
    if not isinstance(config, settings):
        raise ConfigError(
            f"preset {preset!r} is of method {config.method}; this deployment trains by {method_name(settings)}",
            hint="choose a preset of this method, or the deployment of the other one",
        )
    root = config.data.root
    if root == DEMO_DATA or (root is None and preset == config.demo_preset):
        return config.model_copy(update={"data": config.data.model_copy(update={"root": draw_demo_once()})})
    return config


def _guarded(work: Callable[[], EvaluationReport | None]) -> EvaluationReport | State[Any] | None:
    """Run the work of a flow; in a deployment with reports, where an error that no retry mends ends it at once."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None, "called by a flow"
    if context.flow is not None and cancelled_if_stopped in context.flow.on_crashed_hooks:
        return work()  # at a terminal
    _tag_with_host()
    with reported():
        try:
            return work()
        except VireidError as error:
            show_error(error)
            if error.transient:
                raise
            with get_client(sync_client=True) as client:
                policy = FlowRunPolicy(retries=0, retry_delay=0)
                client.update_flow_run(context.flow_run.id, empirical_policy=policy)
            return Failed(message=f"{error.message}\nhint: {error.hint}")


def _tag_with_host() -> None:
    """Name the machine in the flow run's tags: orphaned runs are looked for on their own machine only."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    kept = [tag for tag in context.flow_run.tags if not tag.startswith(HOST_TAG)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=[*kept, HOST_TAG + socket.gethostname()])
