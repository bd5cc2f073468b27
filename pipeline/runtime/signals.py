"""Signals that end a command: SIGTERM and SIGHUP do what Ctrl-C does, so that a command closes what it has opened."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_REPEATED_SECONDS = 5.0
"""A terminal that closes sends SIGHUP twice; the second one must not interrupt the clean-up."""
_AGAIN_SECONDS = 0.05
"""Until a lost interrupt comes again: its callback has returned by then."""


@contextmanager
def ending_signals_as_interrupt() -> Iterator[list[int]]:
    """Raise `KeyboardInterrupt` for SIGTERM and SIGHUP inside the `with` block.

    A signal that is ignored stays so (`nohup`), and so does a handler of the caller. An interrupt that is lost, because
    it fell into a destructor or a callback of the interpreter, comes again. Does nothing outside the main thread.

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

    def again(lost: "sys.UnraisableHookArgs") -> None:
        nonlocal limit
        if lost.exc_type is not KeyboardInterrupt:
            before(lost)
            return
        limit, number = 0.0, received.pop() if received else signal.SIGINT
        threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()

    changed = [number for number in ENDING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    before = sys.unraisablehook
    if changed:  # else an outer block knows which signal was lost
        sys.unraisablehook = again
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        sys.unraisablehook = before
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def ending_signals_call(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop` with the number of each SIGINT, SIGTERM and SIGHUP inside the `with` block, for servers.

    A signal that is ignored stays so (`nohup`).
    """
    numbers = (signal.SIGINT, *ENDING_SIGNALS)
    previous = {number: signal.getsignal(number) for number in numbers}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in previous:
        signal.signal(number, lambda received, _: stop(received))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
