"""A run that is killed again and again, for `run_calm_and_killed`, which starts it in a process of its own.

For each kill point a fork of this process runs the flow and sends itself SIGKILL there; the last one runs to the end.
Forking happens before torch has started a thread.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
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


def fork(work: Callable[[], object]) -> int:
    """Run something in a fork of this process; gives its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # nothing of the parent may run on in the child
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(
    points: Sequence[str], work: Callable[[], object], prepare: Callable[[str, str, int], None] = die_at_call
) -> None:
    """Kill a fork that does the work at each point in turn; a point is `module:name:number of the call`."""
    for point in points:
        module, name, number = point.split(":")

        def die_there(module: str = module, name: str = name, number: int = int(number)) -> None:
            prepare(module, name, number)
            work()

        if (code := fork(die_there)) != -signal.SIGKILL:
            sys.exit(f"{point} was not reached: exit code {code}")


def main(calm_file: str, killed_file: str, *points: str) -> None:
    """Run undisturbed; then run again, killed at each point in turn, to the end."""
    calm, killed = (validate_config(json.loads(Path(file).read_text())) for file in (calm_file, killed_file))
    if code := fork(lambda: run_plainly(calm)):
        sys.exit(code)
    kill_at(points, lambda: run_plainly(killed))
    run_plainly(killed)
