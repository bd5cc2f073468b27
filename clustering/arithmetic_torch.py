"""Twins of `dot_kernels` and `weight_kernels` on tensors: equal to the last bit, on every device.

Only additions, multiplications and divisions of single numbers occur, each rounded once as IEEE 754 says, in the same
order as there; sums are of integers. No reduction of the library adds floats, because its order is the library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clustering.blocks_torch import block_rows
from clustering.dot_kernels import LANES
from clustering.weight_kernels import POWER_SCALE, SQUARINGS, TAYLOR

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64
    from torch import Tensor

PLACE_BITS = 31  # of a member's place in its row


def row_dots(
    rows: Float32[Tensor, "n d"], first: Int64[Tensor, "m"], second: Int64[Tensor, "m"]
) -> Float64[Tensor, "m"]:
    """Inner products of pairs of rows, each in float64 as `row_dot` sums it.

    Args:
        rows: Unit rows.
        first: One row of each pair.
        second: The other.

    Cost: The pairs' rows are gathered, in blocks: 8 d bytes a pair, and 2 kB.
    """
    import torch

    size = block_rows(rows.device, 8 * rows.shape[1] + 16 * LANES)
    parts = [_dots(rows[one], rows[two]) for one, two in zip(first.split(size), second.split(size), strict=True)]
    return torch.cat(parts)


def _dots(first: Float32[Tensor, "m d"], second: Float32[Tensor, "m d"]) -> Float64[Tensor, "m"]:
    """Inner products of rows with rows."""
    import torch

    lanes = torch.zeros((len(first), LANES), dtype=torch.float64, device=first.device)
    for one, two in zip(first.split(LANES, dim=1), second.split(LANES, dim=1), strict=True):
        lanes[:, : one.shape[1]].addcmul_(one.double(), two.double())  # the product is exact, so fusing changes nothing
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def powers(similarities: Float64[Tensor, "m"]) -> Int64[Tensor, "m"]:
    """exp(-(2 - 2 cosine)) as multiples of 1 / POWER_SCALE, as `power` has them."""
    import torch

    part = (similarities * 2.0 - 2.0) / 16.0
    value = torch.full_like(part, TAYLOR[-1])
    for term in reversed(TAYLOR[:-1]):
        value = value * part + term
    for _ in range(SQUARINGS):
        value = value * value
    return torch.floor(value * POWER_SCALE + 0.5).long()


def softmax_weights(
    powers: Int64[Tensor, "z"], rows: Int64[Tensor, "z"], starts: Int64[Tensor, "b_plus_one"], unit: int
) -> Int64[Tensor, "z"]:
    """Weights of members that sum to `unit` in each row, as `fill_weights` has them.

    Args:
        powers: Of each member.
        rows: In which row it is, ascending, from 0.
        starts: Where each row starts, and the number of members.
        unit: The sum of a row.
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
