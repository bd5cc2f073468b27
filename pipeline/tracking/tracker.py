"""Who records a run: what every tracker can be told, and the one that records nothing."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

R = TypeVar("R")


class UninterruptibleThread:
    """A thread that Ctrl-C and SIGTERM do not reach, for calls that must be whole.

    Python raises what a handler of signals raises between any two instructions of the main thread: a library that is
    told to stop between taking a lock and noting that it has it keeps the lock for ever. Here the waiting is what is
    stopped, and it goes on until the work is done. Handlers stay as they are: Prefect cancels only where it finds its
    own.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        # Begun before there is work: a signal could come while a thread begins, and it would not be waited for.
        self._thread.submit(int).result()

    def call(self, work: Callable[[], R]) -> R:
        """Call a function there, and wait for its end.

        Returns:
            What it returns.

        Raises:
            Exception: What it raises.
            BaseException: What a signal's handler raised meanwhile, once the work is done.
        """
        try:
            return self._thread.submit(work).result()
        except BaseException:
            self._thread.submit(int).result()  # one thing after the other: this waits for what was asked before
            raise


Status = Literal["FINISHED", "FAILED", "KILLED"]
Numbers = Mapping[str, float | int]


@runtime_checkable
class Tracker(Protocol):
    """Records a run. Every call may be repeated: a run that was killed in between repeats it."""

    @property
    def records(self) -> bool:
        """Whether anything is recorded; a tracker that records nothing needs no replay."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin the record, or go on with that of the interrupted run."""

    def round(self, number: int, metrics: Numbers, params: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Record a finished round."""

    def attach(self, path: Path) -> None:
        """Keep a file with the run as a whole."""

    def register(self, path: Path) -> None:
        """Register a model of the result, in a folder that `pipeline.tracking.mlflow_models.save_model` wrote.

        When this returns and the tracker `records`, the folder is no longer needed.
        """

    def finish(self, status: Status) -> None:
        """End the record. Raises nothing, so that it can be called while an error is on its way."""

    def compare_url(self, ui: str) -> str | None:
        """The page of the user interface at `ui` that shows the rounds side by side; None where nothing is recorded."""

    def run_url(self, ui: str) -> str | None:
        """The run's own page of the user interface at `ui`; None where nothing is recorded."""


class UninterruptedTracker:
    """Tells another tracker everything, each call whole: for one that writes to a file which it locks.

    Args:
        tracker: The one that records.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._caller = UninterruptibleThread()

    @property
    def records(self) -> bool:
        """As the other one does."""
        return self._tracker.records

    def start(self, config: Mapping[str, Any]) -> None:
        """As the other one does."""
        self._caller.call(lambda: self._tracker.start(config))

    def round(self, number: int, metrics: Numbers, params: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """As the other one does."""
        self._caller.call(lambda: self._tracker.round(number, metrics, params, artifacts))

    def attach(self, path: Path) -> None:
        """As the other one does."""
        self._caller.call(lambda: self._tracker.attach(path))

    def register(self, path: Path) -> None:
        """As the other one does."""
        self._caller.call(lambda: self._tracker.register(path))

    def finish(self, status: Status) -> None:
        """As the other one does."""
        self._caller.call(lambda: self._tracker.finish(status))

    def compare_url(self, ui: str) -> str | None:
        """As the other one does."""
        return self._tracker.compare_url(ui)

    def run_url(self, ui: str) -> str | None:
        """As the other one does."""
        return self._tracker.run_url(ui)


class SilentTracker:
    """Records nothing."""

    records = False

    def start(self, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def round(self, number: int, metrics: Numbers, params: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Do nothing."""

    def attach(self, path: Path) -> None:
        """Do nothing."""

    def register(self, path: Path) -> None:
        """Do nothing."""

    def finish(self, status: Status) -> None:
        """Do nothing."""

    def compare_url(self, ui: str) -> None:
        """There is no such page."""

    def run_url(self, ui: str) -> None:
        """There is no such page."""
