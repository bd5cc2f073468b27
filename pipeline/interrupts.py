"""Calls that no signal stops halfway: a database must not be left in the middle of a write."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


class Aside:
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
