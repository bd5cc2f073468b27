"""Blocks of rows on a torch device, and twins of the compiled arithmetic that are equal to the last bit.

Only additions, multiplications and divisions of single numbers occur, each rounded once (IEEE 754), in the order of the
kernels; sums are of integers. Torch reductions add floats in an order of their own and are not used. Torch is imported
inside functions: the package works without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from clustering.jaccard_kernels import POWER_SCALE, SQUARINGS, TAYLOR
from clustering.neighbours_kernels import LANES

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32, Float64, Int64
    from torch import Tensor


T = TypeVar("T")

logger = logging.getLogger(__name__)

BLOCK_BYTES = {"cuda": 1 << 31, "cpu": 1 << 26}


def block_rows(device: torch.device, bytes_each: int) -> int:
    """Rows in a block, at least one, if each takes about `bytes_each` of working memory."""
    return max(1, BLOCK_BYTES[device.type] // max(1, bytes_each))


def in_device_blocks(task: Callable[[int, int], T], num_rows: int, rows: int) -> list[T]:
    """Run `task(start, stop)` over consecutive blocks of at first `rows` rows, and return the results in order.

    A block that does not fit in the device's memory is retried at half its size, and later blocks keep that size; a
    call logs this once. Results must not depend on the blocks. 0 rows give one call, for a result of the right type.
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
                raise ValueError("the device's memory is too small for one image's work: use the CPU") from error
            rows = (stop - start) // 2
        else:
            start = stop
            continue
        # Outside of the handler, which would keep the failed block's tensors alive.
        torch.cuda.empty_cache()
        if not halved:
            logger.warning("the device's memory is too small: continuing with blocks of at most %d rows", rows)
        halved = True
    return results


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices as float32, whatever mode training has set, and record no gradients.

    TensorFloat-32 keeps three decimals of an inner product, which would reorder neighbours.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


PLACE_BITS = 31  # of a member's place in its row


def row_dots(
    rows: Float32[Tensor, "n d"], first: Int64[Tensor, " m"], second: Int64[Tensor, " m"]
) -> Float64[Tensor, " m"]:
    """Inner products rows[first] . rows[second] in float64, summed in the order of `row_dot`.

    Cost: Gathers the pairs' rows in blocks: 8 d bytes a pair, and 2 kB.
    """
    import torch

    size = block_rows(rows.device, 8 * rows.shape[1] + 16 * LANES)
    parts = [_dots(rows[one], rows[two]) for one, two in zip(first.split(size), second.split(size), strict=True)]
    return torch.cat(parts)


def _dots(first: Float32[Tensor, "m d"], second: Float32[Tensor, "m d"]) -> Float64[Tensor, " m"]:
    import torch

    lanes = torch.zeros((len(first), LANES), dtype=torch.float64, device=first.device)
    for one, two in zip(first.split(LANES, dim=1), second.split(LANES, dim=1), strict=True):
        lanes[:, : one.shape[1]].addcmul_(one.double(), two.double())  # the product is exact, so fusing changes nothing
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def powers(similarities: Float64[Tensor, " m"]) -> Int64[Tensor, " m"]:
    """exp(-(2 - 2 cosine)) as multiples of 1 / POWER_SCALE, as in the kernel `power`."""
    import torch

    part = (similarities * 2.0 - 2.0) / 16.0
    value = torch.full_like(part, TAYLOR[-1])
    for term in reversed(TAYLOR[:-1]):
        value = value * part + term
    for _ in range(SQUARINGS):
        value = value * value
    return torch.floor(value * POWER_SCALE + 0.5).long()


def softmax_weights(
    powers: Int64[Tensor, " z"], rows: Int64[Tensor, " z"], starts: Int64[Tensor, " b_plus_one"], unit: int
) -> Int64[Tensor, " z"]:
    """Integer weights of members that sum to `unit` in each row, as in the kernel `fill_weights`.

    `rows` (ascending, from 0) is the row of each member; `starts` is where each row starts, and the number of members.
    """
    import torch

    num_rows = len(starts) - 1
    totals = powers.new_zeros(num_rows).index_add_(0, rows, powers)
    weights = torch.floor(powers.double() / totals[rows].double() * unit + 0.5).long().clamp_(min=1)
    left = unit - weights.new_zeros(num_rows).index_add_(0, rows, weights)
    last_place = (1 << PLACE_BITS) - 1
    places = torch.arange(len(rows), device=rows.device) - starts[rows]
    keys = (weights << PLACE_BITS) | (last_place - places)  # the largest weight, the first in a tie
    largest = keys.new_zeros(num_rows).scatter_reduce_(0, rows, keys, "amax")
    weights[starts[:-1] + last_place - (largest & last_place)] += left
    return weights
