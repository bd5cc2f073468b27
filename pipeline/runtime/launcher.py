"""Several ranks on this machine for one run: started, monitored and ended together.

`torch.distributed.elastic`, the core of torchrun, starts and monitors them; their rendezvous is a file, not a network
port. On several machines torchrun itself starts them (`docs/many-gpus.md`).
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes
from torch.distributed.elastic.multiprocessing.api import PContext, RunProcsResult, SignalException

from pipeline import console, errors
from pipeline.errors import RankError, VireidError
from pipeline.runtime.children import end_with_parent
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import joined
from pipeline.runtime.signals import ending_signals_as_interrupt

_LOOPBACK = "lo"
_INTERRUPTED = 130
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_WATCHERS = ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn")
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed")


def launch(work: Callable[..., None], arguments: tuple[Any, ...], *, count: int, device: str) -> None:
    """Call `work(*arguments)` (picklable) on `count` ranks, each with its own GPU, and wait for all of them.

    Raises:
        ConfigError: There are fewer GPUs than ranks.
        VireidError: Raised by a rank.
        RankError: A rank ended in another way, for instance because it was killed; the others were ended.
    """
    kind = resolve_device(device, 0, count).type
    with tempfile.TemporaryDirectory(prefix="vireid-") as name:
        folder = Path(name)
        previous = _handlers()
        for watcher in _WATCHERS:
            logging.getLogger(watcher).setLevel(logging.CRITICAL)  # reported below
        started = start_processes(
            name="vireid",
            entrypoint=_enter,
            args=dict.fromkeys(range(count), (work, arguments, kind, name)),
            envs={rank: _environment(rank, count) for rank in range(count)},
            logs_specs=DefaultLogsSpecs(),
            start_method="spawn",
        )
        outcome = _wait(started, previous)
        if outcome.failures:
            raise _what_happened(folder, outcome, count)


def _wait(started: PContext, previous: Mapping[signal.Signals, Any]) -> RunProcsResult:
    """Wait for the ranks; a signal that ends this process ends them first, and then has its usual effect."""
    raised, outcome = None, None
    try:
        for known, handler in previous.items():
            if handler is signal.SIG_IGN:  # as under nohup
                signal.signal(known, handler)
        outcome = started.wait(period=_POLL_SECONDS)
    except SignalException as stopped:
        raised = stopped.sigval
    finally:
        started.close(raised, timeout=_GRACE_SECONDS)
        for known, handler in previous.items():
            signal.signal(known, handler)
    if raised is not None:
        signal.raise_signal(raised)
        raise KeyboardInterrupt  # where the signal is ignored
    assert outcome is not None, "waiting has no limit"
    return outcome


def _handlers() -> dict[signal.Signals, Any]:
    """The present signal handlers, which `start_processes` changes in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {known: signal.getsignal(known) for known in _ENDING_SIGNALS}


def _environment(rank: int, count: int) -> dict[str, str]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    # Communication stays within this machine.
    interfaces = {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}
    return {name: str(value) for name, value in place.items()} | interfaces


def _enter(work: Callable[..., None], arguments: tuple[Any, ...], kind: str, folder: str) -> None:
    """One rank: join, work, and report errors: a known error in a file, another one as a traceback."""
    end_with_parent(_GRACE_SECONDS)
    with ExitStack() as stack:
        stack.push(partial(_explain, Path(folder)))
        stack.enter_context(ending_signals_as_interrupt())
        processes = stack.enter_context(joined(kind, init_method=f"file://{folder}/meeting"))
        if processes.is_rank_zero:
            console.set_up_logging()
        else:
            console.silence()
        work(*arguments)


def _explain(
    folder: Path, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    match error:
        case None:
            return
        case VireidError():
            known = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
            (folder / f"error-{os.environ['RANK']}.json").write_text(json.dumps(known))
        case KeyboardInterrupt():
            sys.exit(_INTERRUPTED)
        case _ if any(sign in str(error) for sign in _LOST):
            # Another rank is lost, and its end should be reported: wait to be ended.
            signal.pause()
        case _:
            traceback.print_exception(kind, error, trace)
    sys.exit(1)


def _what_happened(folder: Path, outcome: RunProcsResult, count: int) -> VireidError:
    """A `VireidError` of the lowest rank that raised one, else how a rank ended."""
    for path in sorted(folder.glob("error-*.json")):
        known = json.loads(path.read_text())
        error: VireidError = getattr(errors, known["kind"])(known["message"], hint=known["hint"])
        return error
    rank, failure = next(iter(outcome.failures.items()))
    return RankError(
        f"process {rank} of {count} {_ending(failure.exitcode)}; the others were ended, the last round is kept",
        hint="repeat the command to resume; a killed process may have run out of memory",
    )


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
