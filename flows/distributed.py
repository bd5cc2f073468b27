"""Training on one rank or on several: rank 0 runs its stages as tasks of the flow run, the others run them directly."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import Flow
from prefect.context import FlowRunContext, hydrated_context
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.artifacts import is_reported, reported
from flows.prefect_local import prefect_at_terminal
from flows.tasks import run_as_task
from pipeline.config.experiment import AnyConfig
from pipeline.console import silence
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods import train
from pipeline.runs.open import run_path
from pipeline.runs.stages import stages_run_by
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import Processes, joined_if_torchrun
from pipeline.runtime.launcher import launch
from pipeline.storage.run_folder import RunFolder


def train_as_tasks(config: AnyConfig) -> EvaluationReport | None:
    """Train in this process, or start the ranks that the settings ask for; called by a flow.

    Raises:
        VireidError: What a rank raised; `RankError` if it ended in another way.
    """
    if config.execution.processes == 1 or Processes.here().count > 1:
        with stages_run_by(run_as_task):
            return train(config)
    launch(_work, (config, _FlowRun.here()), count=config.execution.processes, device=config.execution.device)
    with RunFolder.reopen(run_path(config)) as folder:
        record = folder.read_evaluation()
    return None if record is None else EvaluationReport.from_dict(record)


@contextmanager
def rank_zero_of_torchrun(configs: Sequence[AnyConfig]) -> Iterator[bool]:
    """Join the ranks that torchrun has started, if it has; ranks other than 0 train here, without a flow.

    Args:
        configs: What rank 0 will train, one after the other.

    Yields:
        Whether this process is rank 0, or alone, and runs the flow; otherwise nothing is left to do.
    """
    with joined_if_torchrun(resolve_device(configs[0].execution.device).type) as processes:
        if not processes.is_rank_zero:
            silence()
            for config in configs:
                train(config)
        yield processes.is_rank_zero


def _work(config: AnyConfig, flow_run: "_FlowRun") -> None:
    if Processes.here().is_rank_zero:
        with _part_of(flow_run), stages_run_by(run_as_task):
            train(config)
    else:
        train(config)


@dataclass(frozen=True, slots=True)
class _FlowRun:
    """A flow run as another process can take part in it.

    Attributes:
        flow: Its flow's name.
        context: Prefect's context of the run.
        api: The address of its server.
        deployed: Whether a worker started it, and not a person at a terminal: then Prefect's messages are wanted.
    """

    flow: str
    context: dict[str, Any]
    api: str
    deployed: bool

    @staticmethod
    def here() -> "_FlowRun":
        current = FlowRunContext.get()
        assert current is not None and current.flow is not None, "called by a flow"
        context = current.serialize()
        # A flow is an object of a module, which the other process imports; it cannot be sent.
        del context["flow"]
        return _FlowRun(current.flow.name, context, str(current.client.api_url), deployed=is_reported())


@contextmanager
def _part_of(flow_run: _FlowRun) -> Iterator[None]:
    """Let tasks belong to the flow run, and talk to its server."""
    from flows.deployments import FLOWS  # it imports this module

    flow: Flow[Any, Any] = FLOWS[flow_run.flow]
    with (
        _reported_to_server() if flow_run.deployed else prefect_at_terminal(),
        temporary_settings({PREFECT_API_URL: flow_run.api}),
        hydrated_context({"flow_run_context": flow_run.context | {"flow": flow}}),
    ):
        yield


@contextmanager
def _reported_to_server() -> Iterator[None]:
    """What the worker's process has from its start: our log lines reach the server, and so do progress and rounds."""
    setup_logging()
    with reported():
        yield
