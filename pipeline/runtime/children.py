"""Child processes that end with this process, even if it is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import wait

_GRACE_SECONDS = 10.0
"""Time from the end of the parent, or from SIGTERM, to SIGKILL."""

# Reads a line for each process group: a sign, its number, and a signal. The input ends with the process that writes it.
_WATCH = f"""
import os, signal, sys, time
groups = {{}}
for line in sys.stdin:
    sign, group, number = line.split()
    groups.pop(int(group), None)
    if sign == "+":
        groups[int(group)] = int(number)
def send(group, number):
    try:
        os.killpg(group, number)
    except OSError:
        del groups[group]
for group, number in list(groups.items()):
    send(group, number)
limit = time.monotonic() + {_GRACE_SECONDS}
while groups and time.monotonic() < limit:
    time.sleep(0.1)
    for group in list(groups):
        send(group, 0)
for group in list(groups):
    send(group, signal.SIGKILL)
"""


class GroupWatch:
    """A small process that ends process groups once this process is gone, by whatever signal."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-I", "-S", "-c", _WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def add(self, group: int, number: signal.Signals = signal.SIGTERM) -> None:
        """End the group by this signal; after a while by SIGKILL."""
        self._write(f"+ {group} {int(number)}\n")

    def remove(self, group: int) -> None:
        """The group has ended."""
        self._write(f"- {group} 0\n")

    def close(self) -> None:
        """End the groups that are left, and the process."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it was killed: the groups end with an ordinary end of this process only
            self._process.stdin.write(line)
            self._process.stdin.flush()


def end_with_parent(seconds: float = 0.0) -> None:
    """Let a process that `multiprocessing` has started end `seconds` after its parent, for which it would wait."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a child process"

    def watch() -> None:
        wait([parent.sentinel])
        if seconds:
            threading.Event().wait(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
