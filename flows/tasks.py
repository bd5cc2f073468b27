"""Stages as Prefect tasks, on one or several ranks: rank 0 runs them as tasks, other ranks run them directly."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Flow, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, hydrated_context
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.utilities.urls import url_for

from flows.artifacts import is_reported, reported, show_rounds
from flows.prefect_local import prefect_at_terminal
from pipeline.config.experiment import AnyConfig
from pipeline.console import silence
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods import METHODS, train
from pipeline.runs.evaluator import IdentityEvaluator
from pipeline.runs.open import run_path
from pipeline.runs.record import FLOW_RUN_PAGE
from pipeline.runs.run import Run
from pipeline.runs.stages import Stage, stages_run_by
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import Processes, joined_if_torchrun
from pipeline.runtime.launcher import launch
from pipeline.secrets import clickable
from pipeline.storage.run_folder import RunFolder


def as_task(stage: Stage[..., Any]) -> Task[..., Any]:
    """A stage as a task; a server can limit tasks with the tag `gpu`."""
    # Inputs are gigabytes of features, outputs are tensors: hashing or storing them would cost more than the stage.
    return task(
        name=stage.name, cache_policy=NO_CACHE, persist_result=False, tags=("gpu",) if stage.uses_device else ()
    )(stage.timed)


TASKS = {stage: as_task(stage) for method in METHODS for stage in method.stages}


def run_as_task(stage: Stage[..., Any], run: Run[Any, Any], *values: Any) -> Any:
    """Run a stage as a task of the current flow run; at the end of a round publish the table of rounds."""
    result = TASKS[stage].with_options(task_run_name=f"{stage.name}-{run.round.name}")(run, *values)
    if stage.ends_round:
        show_rounds(run)
    return result


@task(
    name="measure-again",
    task_run_name="measure-again-{run.record.folder.path.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    tags=("gpu",),
)
def measure_again(
    run: Run[Any, Any], evaluator: IdentityEvaluator, features_file: Path | None, queries_file: Path | None
) -> EvaluationReport:
    """Encode the test images with the weights of the result, and run every search."""
    return evaluator.measure_to_files(run, features_file, queries_file)


def train_as_tasks(config: AnyConfig) -> EvaluationReport | None:
    """Train in this process, or start `execution.processes` ranks; called by a flow. Raises the error of a rank."""
    flow_run = _FlowRun.here()
    FLOW_RUN_PAGE.set(flow_run.page if flow_run is not None and flow_run.deployed else None)
    if config.execution.processes == 1 or Processes.here().count > 1:
        with nullcontext() if flow_run is None else stages_run_by(run_as_task):
            return train(config)
    launch(_work, (config, flow_run), count=config.execution.processes, device=config.execution.device)
    with RunFolder.reopen(run_path(config)) as folder:
        record = folder.read_evaluation()
    return None if record is None else EvaluationReport.from_dict(record)


@contextmanager
def rank_zero_of_torchrun(configs: Sequence[AnyConfig]) -> Iterator[bool]:
    """Join the ranks that torchrun started, if any. Ranks other than 0 train all `configs` here, without a flow.

    Yields:
        Whether this process is rank 0, or alone, and has to run the flow.
    """
    with joined_if_torchrun(resolve_device(configs[0].execution.device).type) as processes:
        if not processes.is_rank_zero:
            silence()
            for config in configs:
                train(config)
        yield processes.is_rank_zero


def _work(config: AnyConfig, flow_run: "_FlowRun | None") -> None:
    if flow_run is not None and Processes.here().is_rank_zero:
        FLOW_RUN_PAGE.set(flow_run.page if flow_run.deployed else None)
        with _part_of(flow_run), stages_run_by(run_as_task):
            train(config)
    else:
        train(config)


@dataclass(frozen=True, slots=True)
class _FlowRun:
    """A flow run, sent to the process of rank 0: its flow's name, Prefect's context, the server's address and password.

    `deployed`: whether a worker started it, and not the command line; then it logs to Prefect. `page` shows it there.
    """

    flow: str
    context: dict[str, Any]
    api: str
    password: str | None = field(repr=False)
    deployed: bool
    page: str | None

    @staticmethod
    def here() -> "_FlowRun | None":
        current = FlowRunContext.get()
        if current is None:
            return None
        assert current.flow is not None
        page = None if current.flow_run is None else url_for(current.flow_run)
        context = current.serialize()
        # A flow cannot be pickled; the other process imports it.
        del context["flow"]
        return _FlowRun(
            current.flow.name,
            context,
            str(current.client.api_url),
            PREFECT_API_AUTH_STRING.value(),
            is_reported(),
            page and clickable(page),
        )


@contextmanager
def _part_of(flow_run: _FlowRun) -> Iterator[None]:
    from flows.deployments import FLOWS  # which imports this module

    flow: Flow[Any, Any] = FLOWS[flow_run.flow]
    with (
        temporary_settings({PREFECT_API_URL: flow_run.api, PREFECT_API_AUTH_STRING: flow_run.password}),
        _reported_to_server() if flow_run.deployed else prefect_at_terminal(),
        hydrated_context({"flow_run_context": flow_run.context | {"flow": flow}}),
    ):
        yield


@contextmanager
def _reported_to_server() -> Iterator[None]:
    """Send log lines and artifacts to the server, as the worker's process does."""
    setup_logging()
    with reported():
        yield
