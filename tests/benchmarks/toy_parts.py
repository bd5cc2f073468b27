"""Parts of a check that end in every way that a part can end."""

import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu_check_parts import Check, Row, Rows


def whole(check: Check) -> Rows:
    """Two rows and, between them, three that cannot be measured."""
    yield "first", lambda: {"value": 1}
    yield "large", too_large
    yield "absent", absent
    yield "wrong", lambda: {"value": 1 // 0}
    yield "last", lambda: {"value": 2}


def too_large() -> Row:
    raise RuntimeError("CUDA out of memory. Tried to allocate 5.00 GiB")


def absent() -> Row:
    import no_such_package

    return {"value": no_such_package.value}


def endless(check: Check) -> Rows:
    """A row, then a program that is waited for."""
    yield "first", lambda: {"value": 1}
    yield "second", lambda: wait_for_ever(check)


def wait_for_ever(check: Check) -> Row:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (check.scratch / "pid").write_text(str(program.pid))
    time.sleep(600)
    return {}


def killed(check: Check) -> Rows:
    """A row, then the end, as from a driver that crashes."""
    yield "first", lambda: {"value": 1}
    os.kill(os.getpid(), signal.SIGKILL)


def broken(check: Check) -> Rows:
    """Nothing but an error."""
    raise ValueError("no rows today")
    yield
