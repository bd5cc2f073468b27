"""Processes of this machine by number: whether one runs, and the end of a whole process group.

Reads /proc itself: psutil knows no process groups, its waiting takes the exit code of a child away from `subprocess`,
and the check of a GPU runs without it.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")
_POLL_SECONDS = 0.01
_LONGEST_END = 10.0
"""Seconds; a process that the kernel cannot end by then hangs in a driver or on a network file system."""


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """What is known of a process.

    Args:
        group: The number of its process group.
        start: Clock ticks from the start of the machine to that of the process. A later process with the same number
            has another value.
    """

    group: int
    start: int


def running_process(pid: int) -> RunningProcess | None:
    """A process that runs; None if it has ended, even if its parent has not noticed, and on a system without /proc."""
    try:
        status = (_PROCESSES / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, *values = status.rpartition(")")[2].split()
    return None if state in ("Z", "X") else RunningProcess(group=int(values[1]), start=int(values[18]))


def kill_group(group: int) -> None:
    """Send SIGKILL to a process group, and wait until none of its processes runs; at most 10 s.

    A signal is only a request: the kernel ends the processes after the call, and until then they hold their ports
    and their memory. Costs a look at every process of the machine, some milliseconds.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    limit = time.monotonic() + _LONGEST_END
    while _has_processes(group) and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)


def _has_processes(group: int) -> bool:
    found = (running_process(int(folder.name)) for folder in _PROCESSES.glob("[0-9]*"))
    return any(process is not None and process.group == group for process in found)
