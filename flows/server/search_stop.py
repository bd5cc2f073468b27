"""The stop of the search server: requests that wait are answered at once, those at work are finished."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Whether the server stops, and the requests that wait, all of one event loop.

    `begin` cancels those; the guard answers a cancelled request with 503.
    """

    def __init__(self) -> None:
        self.begun = False
        self._waiting = set[asyncio.Task[object]]()

    def begin(self) -> None:
        """Cancel all requests that wait, and from now on each one that begins to wait."""
        self.begun = True
        for task in self._waiting:
            task.cancel()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the `with` block the current request waits.

        Raises:
            asyncio.CancelledError: The server stops.
        """
        task = asyncio.current_task()
        assert task is not None
        if self.begun:
            raise asyncio.CancelledError
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)


class Workers:
    """A number of threads; a request waits for a free one until the server stops, and is then cancelled."""

    def __init__(self, count: int, name: str, stop: Stop) -> None:
        self._threads = ThreadPoolExecutor(count, name)
        self._free = asyncio.Semaphore(count)
        self._stop = stop

    async def run(self, call: Callable[[], T]) -> T:
        """The result of a call on one of the threads; once begun, it is finished also when the server stops."""
        with self._stop.waiting():
            await self._free.acquire()
        try:
            return await asyncio.wrap_future(self._threads.submit(call))
        finally:
            self._free.release()
