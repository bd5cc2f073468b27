"""The interface of trackers, a tracker that records nothing, and one whose calls signals do not interrupt."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

R = TypeVar("R")


class UninterruptibleThread:
    """A thread that Ctrl-C and SIGTERM do not reach.

    A signal handler that raises inside a library can leave its lock held. Calls run in this thread; the main thread
    waits until they are done and raises the handler's exception afterwards. Handlers stay installed, since Prefect
    cancels only with its own.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(int).result()  # starts the thread now: a signal during its start would not be waited for

    def call(self, work: Callable[[], R]) -> R:
        """Call a function in the thread; raises its exception, or a signal handler's once the call is done."""
        try:
            return self._thread.submit(work).result()
        except BaseException:
            self._thread.submit(int).result()  # calls run in order, so this waits for the end of `work`
            raise


Status = Literal["FINISHED", "FAILED", "KILLED"]
Numbers = Mapping[str, float | int]
Span = tuple[float, float]
"""Start and end in seconds since 1970."""


@runtime_checkable
class Tracker(Protocol):
    """Records a run. Every call may be repeated, since a killed run repeats its last calls."""

    @property
    def records(self) -> bool:
        """Whether anything is recorded; if not, rounds are not replayed."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Start the record, or resume that of the interrupted run."""

    def round(
        self,
        number: int,
        metrics: Numbers,
        params: Mapping[str, Any],
        artifacts: Sequence[Path] = (),
        span: Span | None = None,
    ) -> None:
        """Record a finished round; `span` is when it began and ended, now if None."""

    def attach(self, path: Path) -> None:
        """Record a file of the whole run."""

    def register(self, path: Path) -> None:
        """Register a folder that `mlflow_models.save_model` wrote; if the tracker `records`, it may then be deleted."""

    def finish(self, status: Status) -> None:
        """End the record. Raises nothing, so that it can be called while an exception propagates."""

    def compare_url(self, ui: str) -> str | None:
        """The page at the user interface `ui` that compares the rounds; None if nothing is recorded."""

    def table_url(self, ui: str) -> str | None:
        """The table of runs at the user interface `ui`; None if nothing is recorded."""

    def run_url(self, ui: str) -> str | None:
        """The run's page at the user interface `ui`; None if nothing is recorded."""


def _whole_call(name: str) -> Any:
    def call(self: "UninterruptedTracker", *values: Any) -> Any:
        return self.thread.call(lambda: getattr(self.tracker, name)(*values))

    return call


class UninterruptedTracker:
    """Makes every call of another tracker in a thread that signals do not reach: for a tracker with a locked file."""

    start = _whole_call("start")
    round = _whole_call("round")
    attach = _whole_call("attach")
    register = _whole_call("register")
    finish = _whole_call("finish")
    compare_url = _whole_call("compare_url")
    table_url = _whole_call("table_url")
    run_url = _whole_call("run_url")

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.thread = UninterruptibleThread()

    @property
    def records(self) -> bool:
        """As for the other tracker."""
        return self.tracker.records


class SilentTracker:
    """Records nothing."""

    records = False

    def start(self, *_: Any) -> None:
        """Do nothing, as every other call."""

    round = attach = register = finish = compare_url = table_url = run_url = start
