"""The min-sum join on a torch device: the pairs that `radius_graph` finds, in blocks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clustering.blocks_torch import block_rows, in_device_blocks
from clustering.jaccard import RadiusGraph, smallest_overlap
from clustering.jaccard_torch import DeviceWeights, entries_of_rows, spans
from clustering.pair_limit import within_limit

if TYPE_CHECKING:
    from jaxtyping import Int32, Int64
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of weights turned into columns.

    Args:
        rows: The image whose row each entry of a column stands in, ascending within a column.
        weights: The weights.
        row_of: The image whose row each entry of the rows stands in.
        later: For each entry of the rows, the place of the next entry of its column.
        left: How many entries follow in that column.
    """

    rows: Int64[Tensor, "z"]
    weights: Int32[Tensor, "z"]
    row_of: Int64[Tensor, "z"]
    later: Int64[Tensor, "z"]
    left: Int64[Tensor, "z"]


def transposed(weights: DeviceWeights) -> Columns:
    """Sort the entries of rows of weights by column.

    Cost: 36 bytes an entry, and as much again while sorting.
    """
    import torch

    num_images = len(weights.starts) - 1
    images = torch.arange(num_images, device=weights.starts.device)
    row_of = images.repeat_interleave(weights.starts.diff())
    order = weights.columns.sort(stable=True).indices
    ends = weights.columns.bincount(minlength=num_images).cumsum(0)
    later = torch.empty_like(order)
    later[order] = torch.arange(1, len(order) + 1, device=order.device)
    return Columns(row_of[order], weights.weights[order], row_of, later, ends[weights.columns] - later)


def pairs_on_device(weights: DeviceWeights, columns: Columns, eps: float) -> RadiusGraph | None:
    """Join the rows of weights: every pair of images within `eps`, ascending by source and then by target, on the host.

    Args:
        weights: From `weights_on_device`.
        columns: The same, from `transposed`.
        eps: Radius in [0, 1).

    Returns:
        The pairs, or nothing where they are more than `pair_limit.MOST_PAIRS`.

    Cost: A sum for each pair of images and an addition for each pair of entries of a column; 2 GB on a GPU.
    """
    least, num_images, found = smallest_overlap(eps, weights.scale), len(weights.starts) - 1, 0

    def join(start: int, stop: int) -> tuple[Int32[np.ndarray, "e"], ...]:
        nonlocal found
        if not within_limit(found):
            return (np.empty(0, np.int32),) * 3
        overlaps = _overlaps(weights, columns, start, stop)
        near = (overlaps >= least).nonzero().flatten()
        fields = (near // num_images + start, near % num_images, overlaps[near])
        on_host = tuple(field.int().cpu().numpy() for field in fields)
        found += len(near)  # last, because a block that does not fit is tried again
        return on_host

    blocks = in_device_blocks(join, num_images, _rows(weights))
    if not within_limit(found):
        return None
    source, target, overlap = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return RadiusGraph(num_images, source, target, overlap.astype(np.int64), weights.scale, eps)


def count_pairs_on_device(weights: DeviceWeights, columns: Columns, eps_values: Sequence[float]) -> tuple[int, ...]:
    """Count the pairs within each of several radii, without holding them; the same arguments and cost."""
    import torch

    least = [smallest_overlap(eps, weights.scale) for eps in eps_values]

    def count(start: int, stop: int) -> Int64[Tensor, "radii"]:
        overlaps = _overlaps(weights, columns, start, stop)
        return torch.stack([(overlaps >= value).sum() for value in least])

    blocks = in_device_blocks(count, len(weights.starts) - 1, _rows(weights))
    return tuple(torch.stack(blocks).sum(dim=0).tolist())


def listed_overlaps_on_device(
    weights: DeviceWeights, ranks: Int64[Tensor, "n k"], images: Int64[Tensor, "b"]
) -> Int64[np.ndarray, "b others"]:
    """Overlaps of some images with the other images of their lists, in the order of the lists, on the host."""
    import torch

    num_images, num_others = len(ranks), ranks.shape[1] - 1

    def add_up(start: int, stop: int) -> Int64[Tensor, "b others"]:
        block = images[start:stop]
        own = torch.zeros((len(block), num_images), dtype=torch.int32, device=ranks.device)
        image, entries = entries_of_rows(weights, block)
        own[image, weights.columns[entries]] = weights.weights[entries]
        pair, entries = entries_of_rows(weights, ranks[block, 1:].flatten())
        shared = own[pair // num_others, weights.columns[entries]].minimum(weights.weights[entries])
        sums = torch.zeros(len(block) * num_others, dtype=torch.int64, device=ranks.device)
        return sums.index_add_(0, pair, shared.long()).view(len(block), num_others)

    members = len(weights.columns) // max(1, num_images)
    size = block_rows(ranks.device, 4 * num_images + 60 * num_others * (members + 1))
    overlaps: Int64[np.ndarray, "b others"] = torch.cat(in_device_blocks(add_up, len(images), size)).cpu().numpy()
    return overlaps


def _rows(weights: DeviceWeights) -> int:
    """Rows of sums in a block: sums, and the products that are added to them, take 16 bytes a sum."""
    return block_rows(weights.starts.device, 16 * (len(weights.starts) - 1))


def _overlaps(weights: DeviceWeights, columns: Columns, start: int, stop: int) -> Int32[Tensor, "sums"]:
    """Shared weight of images start..stop with every later image: a row of n sums each, 0 up to the image itself."""
    import torch

    num_images = len(weights.starts) - 1
    sums = torch.zeros((stop - start) * num_images, dtype=torch.int32, device=weights.starts.device)
    if not len(sums):
        return sums
    first, last = weights.starts[[start, stop]].tolist()
    products = columns.left[first:last].cumsum(0)  # how many pairs of entries, up to and with each
    room = max(num_images, len(sums) // 8)
    cuts = torch.searchsorted(products, torch.arange(0, int(products[-1]) + 1, room, device=sums.device))
    for begin, end in zip([0, *cuts[1:].tolist()], [*cuts[1:].tolist(), last - first], strict=True):
        entry, other = spans(columns.later[first + begin : first + end], columns.left[first + begin : first + end])
        entry += first + begin
        shared = weights.weights[entry].minimum(columns.weights[other])
        sums.index_add_(0, (columns.row_of[entry] - start) * num_images + columns.rows[other], shared)
    return sums
