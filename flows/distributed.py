"""A flow whose work several processes do: the first one runs the flow's tasks, the others follow it."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from prefect.context import FlowRunContext, hydrated_context
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import tasks
from flows.artifacts import is_reported, reported
from flows.prefect_local import prefect_at_terminal
from pipeline import following
from pipeline.config.experiment import AnyConfig
from pipeline.console import fall_silent
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.open import run_path
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import Processes, joined_if_torchrun
from pipeline.runtime.launcher import launch
from pipeline.storage.run_folder import RunFolder

Body = Callable[[Any, ModuleType], EvaluationReport | None]
"""A flow's rounds, told where its stages come from."""


def run_body(body: Body, config: AnyConfig) -> EvaluationReport | None:
    """Run a flow's rounds in this process, or start the processes that the configuration asks for.

    Args:
        body: A function of a module.
        config: The resolved experiment.

    Raises:
        VireidError: What a process raised; `TrainingError` if it ended in another way.
    """
    if config.execution.processes == 1 or Processes.here().count > 1:
        return body(config, tasks)
    launch(_work, (body, config, _FlowRun.here()), count=config.execution.processes, device=config.execution.device)
    with RunFolder.reopen(run_path(config)) as folder:
        record = folder.read_evaluation()
    return None if record is None else EvaluationReport.from_dict(record)


@contextmanager
def first_of_torchrun(body: Body, configs: Sequence[AnyConfig]) -> Iterator[bool]:
    """Take one's place among processes that torchrun has started, if it has; one that is not the first does its part.

    Args:
        body: The rounds of the flow that the first process will run.
        configs: What it will run one after the other.

    Yields:
        Whether this process is the first, or alone, and runs the flow; otherwise nothing is left to do.
    """
    with joined_if_torchrun(resolve_device(configs[0].execution.device).type) as processes:
        if not processes.is_first:
            fall_silent()
            for config in configs:
                body(config, following)
        yield processes.is_first


def _work(body: Body, config: AnyConfig, flow_run: "_FlowRun") -> None:
    if Processes.here().is_first:
        with _part_of(flow_run):
            body(config, tasks)
    else:
        body(config, following)


@dataclass(frozen=True, slots=True)
class _FlowRun:
    """A flow run as another process can take part in it.

    Attributes:
        module: Where its flow is defined.
        name: The flow's name there.
        context: Prefect's context of the run.
        api: The server that it talks to.
        deployed: Whether a worker started it, and not a person at a terminal: then Prefect's messages are wanted.
    """

    module: str
    name: str
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
        function = current.flow.fn
        return _FlowRun(
            function.__module__, function.__name__, context, str(current.client.api_url), deployed=is_reported()
        )


@contextmanager
def _part_of(flow_run: _FlowRun) -> Iterator[None]:
    """Let tasks belong to the flow run, and talk to its server."""
    flow = getattr(importlib.import_module(flow_run.module), flow_run.name)
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
