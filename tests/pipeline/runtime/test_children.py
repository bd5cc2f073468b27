"""Children of a process that is killed end, too."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.runtime.children import GroupWatch
from pipeline.runtime.processes import running_process

# A process that starts another one in a group of its own, says which, and waits to be killed.
GROUPS = """
import subprocess, time
from pipeline.runtime.children import GroupWatch
watch = GroupWatch()
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
watch.add(child.pid)
print(child.pid, flush=True)
time.sleep(600)
"""

WORKERS = """
import multiprocessing, time
from pipeline.runtime.children import end_with_parent
def work():
    end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(600)
if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work).start()
    time.sleep(600)
"""


@pytest.mark.parametrize("program", [GROUPS, WORKERS], ids=["group", "worker"])
def test_a_child_ends_with_a_killed_parent(program: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert running_process(child)
        parent.kill()
        while running_process(child):
            time.sleep(0.02)


def test_a_group_that_has_ended_is_not_signalled_and_others_end_with_the_watch() -> None:
    watch = GroupWatch()
    kept, ended = (subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2))
    try:
        for child in (kept, ended):
            watch.add(child.pid)
        watch.remove(kept.pid)
        closing = threading.Thread(target=watch.close)
        closing.start()
        assert ended.wait() == -signal.SIGTERM
        closing.join()
        assert kept.poll() is None
    finally:
        kept.kill()
        kept.wait()
