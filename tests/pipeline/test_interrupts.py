"""Signals that wait until something is whole."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.interrupts import interrupts_wait


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_effect_when_the_block_is_over(number: signal.Signals) -> None:
    done: list[str] = []

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def write() -> None:
        with interrupts_wait():
            os.kill(os.getpid(), number)
            done.append("written whole")

    previous = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, previous)
    assert done == ["written whole"]


def test_a_block_that_nobody_interrupts_leaves_the_handlers_as_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interrupts_wait():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_error_inside_is_not_lost_to_the_signal() -> None:
    def write() -> None:
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("half written")

    with pytest.raises(KeyboardInterrupt) as stopped:
        write()
    assert isinstance(stopped.value.__context__, ValueError)


def test_a_thread_that_no_signal_reaches_is_left_alone() -> None:
    def work() -> bool:
        with interrupts_wait():
            return threading.current_thread() is not threading.main_thread()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result()
