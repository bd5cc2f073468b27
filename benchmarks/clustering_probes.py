"""Seconds and memory of a call."""

import ctypes
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")

ENOUGH_SECONDS = 60.0  # no further repeat after that


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and its seconds."""
    began = perf_counter()
    result = work()
    return result, perf_counter() - began


def with_peak(work: Callable[[], T]) -> tuple[T, int]:
    """What a call returns, and the bytes that it added, at its peak, to what the process held. Linux only."""
    gc.collect()
    with suppress(OSError, AttributeError):  # what was freed but not handed back would hide what the call takes
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # not every container lets a process forget its peak; then an earlier one is an upper bound
        Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    result = work()
    return result, status_bytes("VmHWM") - before


def with_owned_peak(work: Callable[[], T]) -> tuple[T, int]:
    """What a call returns, and the most memory that the process owned meanwhile: without pages of mapped files. Linux.

    Read twenty times a second, so that a shorter peak may be missed.
    """
    done, peak = Event(), status_bytes("RssAnon")

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, status_bytes("RssAnon"))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        return work(), max(peak, status_bytes("RssAnon"))
    finally:
        done.set()
        watcher.join()


def status_bytes(field: str) -> int:
    """A size that Linux keeps about this process."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def device_peak(device: str) -> int | None:
    """The most memory that was in use on a GPU, features included."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)
