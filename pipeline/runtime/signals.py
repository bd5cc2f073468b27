"""Signals that end a command: SIGTERM and SIGHUP do what Ctrl-C does, so that a command closes what it has opened."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_REPEATED_SECONDS = 5.0
"""A terminal that closes sends SIGHUP twice; the second one must not interrupt the clean-up."""


@contextmanager
def ending_signals_as_interrupt() -> Iterator[list[int]]:
    """Raise `KeyboardInterrupt` for SIGTERM and SIGHUP inside the `with` block.

    A signal that is ignored stays so (`nohup`), and so does a handler of the caller. Does nothing outside the main
    thread.

    Yields:
        The signals received so far.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    limit = 0.0

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
        nonlocal limit
        if time.monotonic() < limit:
            return
        limit = time.monotonic() + _REPEATED_SECONDS
        received.append(number)
        raise KeyboardInterrupt

    changed = [number for number in ENDING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
