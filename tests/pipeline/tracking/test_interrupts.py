"""Calls that no signal stops halfway, and the tracker that makes them."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.tracker import SilentTracker, Tracker, UninterruptedTracker, UninterruptibleThread


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal whose handler raises, as Ctrl-C's does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    one = signal.Signals(request.param)
    previous = signal.signal(one, stop)
    yield one
    signal.signal(one, previous)


def send_and_write(number: signal.Signals, done: list[str]) -> None:
    """Be told to stop in the middle."""
    done.append("begun")
    os.kill(os.getpid(), number)
    time.sleep(0.2)  # long enough for the signal to reach the waiting thread
    done.append("written")


def test_the_work_is_done_before_a_signal_takes_effect(number: signal.Signals) -> None:
    handler, done = signal.getsignal(number), list[str]()
    with pytest.raises(KeyboardInterrupt):
        UninterruptibleThread().call(lambda: send_and_write(number, done))
    assert done == ["begun", "written"]
    assert signal.getsignal(number) is handler


def test_results_and_errors_pass() -> None:
    assert UninterruptibleThread().call(lambda: divmod(7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        UninterruptibleThread().call(lambda: divmod(7, 0))


class Recorder(SilentTracker):
    """Notes what it is told; its round is interrupted."""

    records = True

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        self.told: list[Any] = []

    def round(self, *_: Any) -> None:
        send_and_write(self.number, self.told)

    def finish(self, status: Any) -> None:
        self.told.append(status)


def test_a_tracker_is_told_the_whole_round_and_then_that_the_run_was_stopped(number: signal.Signals) -> None:
    recorder = Recorder(number)
    tracker = UninterruptedTracker(recorder)
    assert isinstance(tracker, Tracker) and tracker.records
    with pytest.raises(KeyboardInterrupt):
        tracker.round(1, {}, {})
    tracker.finish("KILLED")
    assert recorder.told == ["begun", "written", "KILLED"]


def test_everything_is_passed_on(tmp_path: Path) -> None:
    told: list[Any] = []

    class Listener:
        def __getattr__(self, name: str) -> Any:
            return lambda *given: told.append((name, *given))

    tracker = UninterruptedTracker(Listener())
    tracker.start({"seed": 1})
    tracker.round(1, {"a": 1.0}, {"stage": "clip"}, [tmp_path])
    tracker.attach(tmp_path)
    tracker.register(tmp_path)
    tracker.compare_url("http://ui")
    tracker.run_url("http://ui")
    tracker.finish("FINISHED")
    assert told == [
        ("start", {"seed": 1}),
        ("round", 1, {"a": 1.0}, {"stage": "clip"}, [tmp_path]),
        ("attach", tmp_path),
        ("register", tmp_path),
        ("compare_url", "http://ui"),
        ("run_url", "http://ui"),
        ("finish", "FINISHED"),
    ]
