"""Connections to ranks on other machines: a lost one ends this process within a known time.

A collective waits for its peers as long as it takes, because rank 0 may be clustering. A machine that is lost sends
nothing, so its peers would wait for days. The kernels of both machines distinguish a busy peer from a lost one.
"""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.console import print_error
from pipeline.errors import RankError

LOST_SECONDS = 30
"""A connection is lost if the other machine's kernel does not answer for so long; a network may be away for less."""

LEAVE_SECONDS = 30.0
"""A process whose connection is lost ends itself after this time; until then the error of a collective may end it."""

_IDLE_SECONDS, _PROBE_SECONDS = 10, 5
_ERROR_SECONDS = 2.0
_SOCKETS = Path("/proc/self/fd")


class ConnectionWatch:
    """Watches TCP connections of this process, which others read and write, in a thread."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self._connections = {connection.fileno(): connection for connection in connections}
        # A connection that is lost has no name any more.
        self._peers = {number: _address(one.getpeername()[0]) for number, one in self._connections.items()}
        self._ending, self._closed = os.pipe()
        self._found, self._left = threading.Event(), threading.Event()
        self._lost = ""
        for connection in connections:
            _expect_answers(connection)
        self._thread = threading.Thread(target=self._watch, name="connections", daemon=True)
        self._thread.start()

    def error(self) -> RankError | None:
        """The error for a connection that has been lost, also within the next two seconds; else None."""
        return _lost_rank(self._lost) if self._found.wait(_ERROR_SECONDS) else None

    def close(self) -> None:
        """End the watch; the connections themselves stay as they are."""
        self._left.set()
        os.close(self._closed)
        self._thread.join()
        os.close(self._ending)
        for connection in self._connections.values():
            connection.close()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._ending, 0)  # reported once the other end of the pipe is closed
        for number in self._connections:
            poll.register(number, select.POLLRDHUP)  # also errors, but no data, which are for others
        lost = [self._peers[number] for number, _ in poll.poll() if number in self._peers]
        if not lost:
            return
        self._lost = ", ".join(dict.fromkeys(lost))
        self._found.set()
        if not self._left.wait(LEAVE_SECONDS):
            # The main thread computes, or waits for a GPU that waits for the lost rank: nothing can interrupt that.
            try:
                print_error(_lost_rank(self._lost))
            finally:
                os._exit(1)


@contextmanager
def watched_connections(before: frozenset[int]) -> Iterator[None]:
    """Watch all TCP connections that this process has opened since `before`, of `open_descriptors`.

    Raises:
        RankError: A connection was lost, and an operation that needed it has failed. A process that has not ended
            `LEAVE_SECONDS` after the loss prints this error and ends with exit code 1.
    """
    watch, lost = ConnectionWatch(_connections(open_descriptors() - before)), None
    try:
        yield
    except RuntimeError as error:
        lost = watch.error()
        if lost is None:
            raise
        raise lost from error
    finally:
        if lost is None:  # else it stays, because leaving the group may need the lost rank
            watch.close()


def open_descriptors() -> frozenset[int]:
    """The numbers of all open files and connections of this process."""
    return frozenset(int(entry.name) for entry in _SOCKETS.iterdir())


def _connections(numbers: frozenset[int]) -> list[socket.socket]:
    """Own handles of the TCP connections among open descriptors."""
    found = []
    for number in sorted(numbers):
        with suppress(OSError):  # closed meanwhile, or no socket
            handle = socket.socket(fileno=os.dup(number))
            try:
                handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                handle.getpeername()
            except OSError:  # not TCP, or it listens
                handle.close()
            else:
                found.append(handle)
    return found


def _expect_answers(connection: socket.socket) -> None:
    """Let the kernel close a connection whose other machine does not answer, whether data are on the way or not."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _IDLE_SECONDS),
        (socket.TCP_KEEPINTVL, _PROBE_SECONDS),
        (socket.TCP_KEEPCNT, (LOST_SECONDS - _IDLE_SECONDS) // _PROBE_SECONDS),
        (socket.TCP_USER_TIMEOUT, 1000 * LOST_SECONDS),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _address(address: str) -> str:
    return address.removeprefix("::ffff:")


def _lost_rank(machine: str) -> RankError:
    return RankError(
        f"the connection to a rank on {machine} is lost; this rank ends, the last finished round is kept",
        hint=f"see the output of {machine}: its rank has ended, or its network did not answer for {LOST_SECONDS} s; "
        "repeat the command to resume, with any number of machines",
    )
