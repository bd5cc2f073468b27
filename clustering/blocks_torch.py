"""Work on a device in blocks of rows that become smaller where its memory is too small.

Nothing here imports torch before it is called: the package is of use without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

logger = logging.getLogger(__name__)

BLOCK_BYTES = {"cuda": 1 << 31, "cpu": 1 << 26}


def block_rows(device: torch.device, bytes_each: int) -> int:
    """How many rows a block has where each takes about `bytes_each` of working memory; at least one."""
    return max(1, BLOCK_BYTES[device.type] // max(1, bytes_each))


def in_device_blocks(task: Callable[[int, int], T], num_rows: int, rows: int) -> list[T]:
    """Run `task(start, stop)` over consecutive blocks of rows, one after the other.

    A block that does not fit the device's memory is tried again at half its size, as are those after it; this is logged
    once a call.

    Args:
        task: Called once a block, more than once where memory runs out; its results must not depend on the blocks.
        num_rows: Zero or more. Zero rows give one call, so that there is a result of the right kind.
        rows: Rows of a block, at first; 1 or more.

    Returns:
        What the tasks returned, in the order of the blocks.

    Raises:
        ValueError: A single row does not fit.
    """
    import torch

    results: list[T] = []
    start, halved = 0, False
    while start < num_rows or not results:
        stop = min(start + rows, num_rows)
        try:
            results.append(task(start, stop))
        except torch.OutOfMemoryError as error:
            if stop - start <= 1:
                raise ValueError("the device's memory is too small for a single image's work: use the CPU") from error
            rows = (stop - start) // 2
        else:
            start = stop
            continue
        # Outside of the handler, which would keep the failed block's tensors alive.
        torch.cuda.empty_cache()
        if not halved:
            logger.warning("the device's memory is short: going on with blocks of %d rows or fewer", rows)
        halved = True
    return results


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices as float32, whatever mode training has set, and record no gradients.

    TensorFloat-32 keeps three decimals of an inner product: neighbours would change places.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
