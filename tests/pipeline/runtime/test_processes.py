"""Processes by number: what runs, what has ended, and groups that are killed to the last process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runtime.processes import kill_group, running_process

# Processes with memory, which the kernel takes a while to end; each says that it is there.
MEMBERS = 8
GROUP = f"""
import os, sys, time
for member in range({MEMBERS}):
    if member == {MEMBERS} - 1 or not os.fork():
        held = b"x" * 50_000_000
        os.write(1, f"{{os.getpid()}}\\n".encode())
        time.sleep(600)
"""


@pytest.fixture
def group() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", GROUP], stdout=subprocess.PIPE, text=True, process_group=0) as leader:
        yield leader
        leader.kill()


def test_no_process_of_a_killed_group_runs(group: subprocess.Popen[str]) -> None:
    assert group.stdout is not None
    members = [int(group.stdout.readline()) for _ in range(MEMBERS)]
    assert all(process is not None and process.group == group.pid for process in map(running_process, members))
    kill_group(group.pid)
    assert not any(map(running_process, members))
    kill_group(group.pid)  # there is nothing to end


def test_a_process_that_has_ended_does_not_run_although_it_has_an_entry() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert running_process(child.pid) is None


def test_a_process_is_known_by_its_start() -> None:
    here = running_process(os.getpid())
    assert here is not None and here == running_process(os.getpid())
    assert here.group == os.getpgid(0)
    with subprocess.Popen(["sleep", "600"]) as child:
        later = running_process(child.pid)
        child.kill()
    assert later is not None and later.start >= here.start
