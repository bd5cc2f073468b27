"""Stages: the named steps of a round, which a flow can run as tasks; extract, evaluate and finish are shared."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from models.encoder import Head
from models.modality import PerModality
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank
from pipeline.reports import round_table
from pipeline.runs.export_result import export_result
from pipeline.runs.figures import draw_learning
from pipeline.runs.run import Run
from pipeline.runtime.environment import peak_memory
from pipeline.storage.label_files import RoundLabels
from pipeline.storage.layout import ENDED
from pipeline.training.state import SelectedRound

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
AnyRun = TypeVar("AnyRun", bound=Run[Any, Any])


class Runner(Protocol):
    """Runs one stage by calling `stage.timed(run, ...)`."""

    def __call__(self, stage: "Stage[..., Any]", run: Run[Any, Any], *values: Any) -> Any:
        """The stage's result."""


def _directly(stage: "Stage[..., Any]", run: Run[Any, Any], *values: Any) -> Any:
    return stage.timed(run, *values)


_RUNNER: ContextVar[Runner] = ContextVar("runner", default=_directly)


class Stage(Generic[P, R]):
    """A step of a round: a function of the run and of the values that earlier stages returned.

    `name` is the function's name with hyphens. `uses_device` lets a flow limit concurrent use of the device.
    `ends_round`: a finished round has been recorded when it returns.
    """

    def __init__(self, function: Callable[..., R], *, uses_device: bool, ends_round: bool) -> None:
        self.function = function
        self.name = function.__name__.replace("_", "-")
        self.uses_device = uses_device
        self.ends_round = ends_round
        self.__doc__ = function.__doc__

    def __call__(self, run: Run[Any, Any], *values: P.args, **_: P.kwargs) -> R:
        """Run the stage as a task of the surrounding flow; directly without one."""
        result: R = _RUNNER.get()(self, run, *values)
        return result

    def timed(self, run: Run[Any, Any], *values: Any) -> R:
        """Call the function and add its seconds to the round's."""
        start = time.perf_counter()
        try:
            return self.function(run, *values)
        finally:
            run.clock.add(self.function.__name__, time.perf_counter() - start)


def stage(
    *, uses_device: bool = False, ends_round: bool = False
) -> Callable[[Callable[Concatenate[AnyRun, P], R]], Stage[P, R]]:
    """Make a function of a run a `Stage` of its method; it takes positional arguments only."""

    def decorate(function: Callable[Concatenate[AnyRun, P], R]) -> Stage[P, R]:
        return Stage(function, uses_device=uses_device, ends_round=ends_round)

    return decorate


def rank_zero(function: Callable[Concatenate[AnyRun, P], R]) -> Callable[Concatenate[AnyRun, P], R | None]:
    """Run a function of a run on rank 0 only; other ranks return None, because they write and evaluate nothing."""

    @wraps(function)
    def _on_rank_zero(run: AnyRun, /, *values: P.args, **named: P.kwargs) -> R | None:
        return function(run, *values, **named) if run.processes.is_rank_zero else None

    return _on_rank_zero


@contextmanager
def stages_run_by(runner: Runner) -> Iterator[None]:
    """Let `runner` run every stage inside the `with` block."""
    token = _RUNNER.set(runner)
    try:
        yield
    finally:
        _RUNNER.reset(token)


@stage(uses_device=True)
def extract(run: Run[Any, Any]) -> PerModality[FeatureBank]:
    """Encode all training images of both modalities with the weights at the start of the round."""
    return run.extract_training_features(Head.NECK)


@stage(uses_device=True)
@rank_zero
def evaluate(run: Run[Any, Any]) -> EvaluationReport:
    """Encode all held-out images once and run every search of the protocol; training never reads the result."""
    return run.evaluator.evaluate(run)


@stage(uses_device=True)
@rank_zero
def finish(run: Run[Any, Any]) -> EvaluationReport | None:
    """Close the record of a complete run, whose result is its last round, or the selected one.

    Returns the report of the result; None if the data set has no images for evaluation.
    """
    record = run.record.folder.read_evaluation()
    report = None if record is None else EvaluationReport.from_dict(record)
    if report is not None and report.last is None and run.config.evaluation.selection != "last":
        report = run.evaluator.evaluate_result(run, report)
    export_result(run)
    run.record.finish(report)
    return report


def complete_round(run: Run[Any, Any], report: EvaluationReport | None) -> None:
    """Count the round as finished; if a score selects the result, keep the encoder of the (first) best round."""
    run.state.completed, run.state.stage = run.round.number, run.round.stage
    selection = run.config.evaluation.selection
    if report is None or selection == "last":
        return
    score = report.validation[0].mean.map if selection == "val" else report.searches[0].mean.r1
    if run.state.selected is None or score > run.state.selected.score:
        weights = {name: tensor.detach().cpu().clone() for name, tensor in run.state.encoder.state_dict().items()}
        run.state.selected = SelectedRound(run.round.number, score, weights)


def record_round(
    run: Run[Any, Any],
    numbers: Mapping[str, Any],
    report: EvaluationReport | None,
    *,
    labels: RoundLabels | None = None,
    search: str = "",
) -> None:
    """Write the completed round: labels, checkpoint, metrics, MLflow, a line at the terminal.

    `numbers` have their names in MLflow and depend on settings and data only; `labels` get the paths of their images
    here; `search` is the method of the nearest-neighbour search.
    """
    round_ = run.round
    row = {"round": round_.number, "stage": round_.stage, "epoch": round_.epoch} | dict(numbers)
    if report is not None:
        row |= report.metrics()
    headline = run.evaluator.headline_search
    draw_learning(run, row, headline)
    run.state.metrics.append(row)
    seconds = run.clock.seconds()
    spent = {f"seconds/{name}": value for name, value in seconds.items()}
    ended = datetime.now(UTC).isoformat(timespec="milliseconds")
    run.state.timings.append({"search": search, ENDED: ended} | spent | peak_memory())
    if labels is not None:
        labels = replace(labels, paths=run.evaluator.training_paths)
    run.record.finish_round(run.state, labels, report)
    heading = round_table.header(row, headline)
    if heading != run.heading:
        run.heading = heading
        logger.info(heading)
    logger.info(round_table.line(row, seconds["total"], headline))
