"""Compiled kernels and their threads.

Kernels release the interpreter's lock, and a thread pool runs them on blocks of rows. Numba's own parallel loops need a
threading layer that may not be entered from two threads at once and does not survive a fork.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
T = TypeVar("T")

BLOCKS_PER_THREAD = 8


def kernel(function: Function, inline: Literal["never", "always"] = "never") -> Function:
    """Compile a loop over arrays; the machine code is cached on disk, and calls release the interpreter's lock.

    Where no cache can be written, each process compiles anew: about a second for each loop that it calls.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, inline=inline)(function))
    except RuntimeError:  # no folder for the cache
        return cast(Function, numba.njit(nogil=True, inline=inline)(function))


def num_threads() -> int:
    """Number of threads: the processor cores, or the environment variable NUMBA_NUM_THREADS."""
    return int(cast(Any, numba.config).NUMBA_NUM_THREADS)


def over_blocks(task: Callable[[int, int], T], num_rows: int) -> list[T]:
    """Run `task(start, stop)` over consecutive blocks of rows, several at once, and return the results in order.

    A task must write to no rows but its own, and its result for a row must not depend on the block, whose size depends
    on the number of threads. 0 rows give no call.
    """
    threads = num_threads()
    rows = max(1, -(-num_rows // (BLOCKS_PER_THREAD * threads)))
    starts = range(0, num_rows, rows)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda start: task(start, min(start + rows, num_rows)), starts))
