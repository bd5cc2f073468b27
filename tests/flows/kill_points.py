"""A run that is killed again and again: started by `test_kill_and_resume.py` in a process of its own.

For each kill point a fork of this process runs the flow and sends itself SIGKILL there; the last one runs to the end.
Forking happens before torch has started a thread.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.presets import validate_config
from tests.flows.plain_runs import run_plainly


def die() -> None:
    """Leave without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(module: str, name: str, number: int) -> None:
    """Let the process die when `module.name` is called for the `number`-th time."""
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, last)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            die()
        return real(*args, **kwargs)

    setattr(owner, last, counted)


def main(config_file: str, *points: str) -> None:
    """Kill at each point in turn, then finish."""
    config = validate_config(json.loads(Path(config_file).read_text()))
    for point in points:
        module, name, number = point.split(":")
        pid = os.fork()
        if pid == 0:
            die_at_call(module, name, int(number))
            run_plainly(config)
            os._exit(3)  # the point was never reached
        status = os.waitpid(pid, 0)[1]
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"{point} was not reached: status {status}")
    run_plainly(config)


if __name__ == "__main__":
    main(*sys.argv[1:])
