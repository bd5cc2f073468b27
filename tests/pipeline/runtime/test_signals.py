"""Signals that end a command: an interrupt, once, unless they are ignored."""

import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.runtime.signals import ENDING_SIGNALS, ending_signals_as_interrupt


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_is_an_interrupt_and_the_next_one_does_not_interrupt_the_clean_up(number: int) -> None:
    with ending_signals_as_interrupt() as received:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        for again in ENDING_SIGNALS:
            os.kill(os.getpid(), again)
    assert received == [number]
    assert [signal.getsignal(one) for one in ENDING_SIGNALS] == [signal.SIG_DFL] * 2


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals_as_interrupt() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_another_thread_changes_nothing() -> None:
    received: list[list[int]] = []

    def work() -> None:
        with ending_signals_as_interrupt() as numbers:
            received.append(numbers)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert received == [[]]


@contextmanager
def interruptible(handler: Any = signal.default_int_handler) -> Iterator[None]:
    """Ctrl-C works, also in a program that was started in the background; or does what another handler does."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def lose_in_a_callback(number: int) -> None:
    """Send a signal in a callback of the interpreter, which drops what the handler raises; wait for its repetition."""

    class Watched:
        pass

    watched = Watched()
    callback = weakref.ref(watched, lambda _: os.kill(os.getpid(), number))
    del watched
    assert callback() is None
    threading.Event().wait(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_is_lost_in_a_callback_comes_again(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with interruptible(), ending_signals_as_interrupt() as received, pytest.raises(KeyboardInterrupt):
        lose_in_a_callback(number)
    assert received == ([] if number == signal.SIGINT else [number])
    assert "Traceback" not in capfd.readouterr().err


def test_a_signal_that_is_lost_in_an_inner_block_comes_again_where_ctrl_c_is_ignored() -> None:
    with (
        interruptible(signal.SIG_IGN),
        ending_signals_as_interrupt() as received,
        ending_signals_as_interrupt(),
        pytest.raises(KeyboardInterrupt),
    ):
        lose_in_a_callback(signal.SIGTERM)
    assert received == [signal.SIGTERM]
