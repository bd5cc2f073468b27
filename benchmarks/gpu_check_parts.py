"""A part of the GPU check: rows that are measured in a process of its own, until all are there or its time is over."""

import gc
import importlib
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from multiprocessing import get_context, set_start_method
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from pipeline.runtime.processes import kill_group

Row = dict[str, Any]
"""What was measured, or `skipped` or `failed` with the reason."""
Rows = Iterator[tuple[str, Callable[[], Row]]]

PRELOADED = ["benchmarks.gpu_check_preload"]
GLANCE = 0.2  # seconds between two looks at a part
TOO_LITTLE_MEMORY = re.compile(r"out of memory|too little memory|unable to allocate", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Check:
    """What all parts share.

    Args:
        device: As torch spells it.
        dry_run: Whether sizes are toys.
        scratch: A folder for files that one part leaves for another.
        seconds: The time box of a part.
    """

    device: str
    dry_run: bool
    scratch: Path
    seconds: float = inf


class Skip(Exception):
    """A row that cannot be measured here, and why."""


def run_part(rows: str, check: Check, seconds: float, keep: Callable[[dict[str, Any]], None]) -> None:
    """Run a part in a process of its own, and hand over what it has, after every row and at its end.

    Args:
        rows: The function that gives the rows, as "module:name".
        check: For this function.
        seconds: The time box.
        keep: Receives the part: its rows, `seconds`, `box`, and `ended` with the reason where it did not end by itself.
    """
    began, ends = monotonic(), monotonic() + seconds
    file = check.scratch / "rows.json"
    file.unlink(missing_ok=True)
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=measure_rows, args=(rows, replace(check, seconds=seconds), file))
    kept = 0

    def part(ended: str | None = None) -> dict[str, Any]:
        found: dict[str, Row] = json.loads(file.read_text()) if file.exists() else {}
        described = {"seconds": round(monotonic() - began, 1), "box": round(seconds, 1), "rows": found}
        return described if ended is None else described | {"ended": ended}

    try:
        process.start()
        while process.is_alive() and monotonic() < ends:
            process.join(GLANCE)
            if file.exists() and (changed := file.stat().st_mtime_ns) != kept:
                kept = changed
                keep(part())
        out_of_time = process.is_alive()
    finally:
        stop(process)
    if out_of_time:
        keep(part(f"out of time after {seconds:.0f} s"))
    elif process.exitcode:
        keep(part(f"its process ended with exit code {process.exitcode}"))
    else:
        keep(part())


def stop(process: BaseProcess) -> None:
    """End a process and all that it has started."""
    if process.pid is None:
        return
    kill_group(process.pid)
    process.kill()  # had it no group of its own yet
    process.join()


def measure_rows(rows: str, check: Check, file: Path) -> None:
    """What the process of a part does; each row is written as soon as it is there."""
    os.setsid()  # so that all that it starts can be ended with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_start_method("fork", force=True)  # what loaders of the plain side use, unless another program chooses
    logging.getLogger("pipeline").setLevel(logging.ERROR)  # toys and noise deserve most warnings
    module, _, name = rows.partition(":")
    found: dict[str, Row] = {}
    try:
        for row, measure in getattr(importlib.import_module(module), name)(check):
            sys.stderr.write(f"  {row}\n")
            found[row] = attempt(measure)
            write_json(file, found)
    except Exception as error:  # noqa: BLE001  # whatever it is, the following parts run
        found["all"] = unmeasured(error)
        write_json(file, found)


def attempt(measure: Callable[[], Row]) -> Row:
    """A row, or why there is none."""
    began = perf_counter()
    try:
        row = measure()
    except Exception as error:  # noqa: BLE001  # whatever it is, the following rows are measured
        row = unmeasured(error)
    gc.collect()
    forget_memory()
    return row | {"taken_seconds": round(perf_counter() - began, 2)}


def unmeasured(error: Exception) -> Row:
    """Why a row is missing; `failed` with the trace, unless this machine just lacks something."""
    reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, (ImportError, MemoryError, Skip)) or TOO_LITTLE_MEMORY.search(reason):
        return {"skipped": reason}
    trace = traceback.format_exc()
    sys.stderr.write(trace)
    return {"failed": f"{type(error).__name__}: {reason}", "trace": trace.splitlines()[-12:]}


def forget_memory() -> None:
    """Give memory of a GPU back, and let its peak begin anew."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def write_json(file: Path, content: Any) -> None:
    """Replace a file, whole."""
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(file)
