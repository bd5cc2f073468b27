"""Stages: the named steps of a round. A flow can run each as a task; without a flow they are plain functions."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from pipeline.runs.run import Run

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
            run.clock.add(re.sub("-", "_", self.name), time.perf_counter() - start)


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
        return function(run, *values, **named) if run.processes.is_first else None

    return _on_rank_zero


@contextmanager
def stages_run_by(runner: Runner) -> Iterator[None]:
    """Let `runner` run every stage inside the `with` block."""
    token = _RUNNER.set(runner)
    try:
        yield
    finally:
        _RUNNER.reset(token)
