"""Neighbourhood weights and their min-sum join on a torch device: the integers and pairs that `jaccard` gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clustering import jaccard
from clustering.arithmetic_torch import block_rows, in_device_blocks, powers, row_dots, softmax_weights
from clustering.jaccard import LARGEST_SCALE, RadiusGraph, smallest_overlap

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int32, Int64
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class DeviceWeights:
    """`NeighbourhoodWeights` on a device, the columns of each row in ascending order."""

    starts: Int64[Tensor, " n_plus_one"]
    columns: Int64[Tensor, " z"]
    weights: Int32[Tensor, " z"]
    scale: int


def weights_on_device(
    rows: Float32[Tensor, "n d"],
    ranks: Int64[Tensor, "n k"],
    *,
    k1: int,
    k2: int,
    k1_counts_self: bool,
    averaged: Int64[Tensor, "n _"] | None = None,
) -> DeviceWeights:
    """`neighbourhood_weights` on a device, with the same integers as on the CPU; k1 and k2 at most n.

    Cost: 30 bytes for each of an image's k1^2 / 2 candidates in a block, 12 bytes a member of the result.
    """
    width = min(k1 + (0 if k1_counts_self else 1), len(rows))
    half_width = min(round(k1 / 2) + 1, width)
    unit = LARGEST_SCALE // k2
    mutual, half = _mutual(ranks[:, :width]), _mutual(ranks[:, :half_width])

    def weigh(start: int, stop: int) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " z"], Int32[Tensor, " z"]]:
        local, columns = _expanded(ranks, mutual, half, start, stop)
        sizes = local.bincount(minlength=stop - start)
        similarity_powers = powers(row_dots(rows, local + start, columns))
        return sizes, columns, softmax_weights(similarity_powers, local, _starts(sizes), unit).int()

    size = block_rows(rows.device, 32 * width * (half_width + 1))
    expanded = _joined(in_device_blocks(weigh, len(rows), size), unit)
    return expanded if k2 == 1 else _averaged(expanded, ranks if averaged is None else averaged, k2)


def _mutual(ranks: Int64[Tensor, "n width"]) -> Bool[Tensor, "n width"]:
    """Whether each neighbour has the image among its own."""
    import torch

    images = torch.arange(len(ranks), device=ranks.device)

    def is_mutual(start: int, stop: int) -> Bool[Tensor, "b width"]:
        return (ranks[ranks[start:stop]] == images[start:stop, None, None]).any(dim=2)

    return torch.cat(in_device_blocks(is_mutual, len(ranks), block_rows(ranks.device, 9 * ranks.shape[1] ** 2)))


def _expanded(
    ranks: Int64[Tensor, "n k"],
    mutual: Bool[Tensor, "n width"],
    half: Bool[Tensor, "n half_width"],
    start: int,
    stop: int,
) -> tuple[Int64[Tensor, " z"], Int64[Tensor, " z"]]:
    """Members of the expanded sets E of images start..stop: the image, counted from `start`, and the member; sorted."""
    import torch

    own, own_mutual = ranks[start:stop, : mutual.shape[1]], mutual[start:stop]
    members, members_mutual = ranks[:, : half.shape[1]][own], half[own]
    beyond_all = len(ranks)
    reciprocal = torch.where(own_mutual, own, beyond_all).sort(dim=1).values
    candidates = members.flatten(1)
    places = torch.searchsorted(reciprocal, candidates).clamp_(max=reciprocal.shape[1] - 1)
    shared = ((reciprocal.gather(1, places) == candidates).view(members.shape) & members_mutual).sum(dim=2)
    grows = own_mutual & (3 * shared > 2 * members_mutual.sum(dim=2))  # two thirds, without rounding
    first_key = torch.arange(stop - start, device=ranks.device)[:, None] * len(ranks)
    added = (members + first_key[:, :, None])[members_mutual & grows[:, :, None]]
    keys = torch.cat([(own + first_key)[own_mutual], added]).unique()
    return keys // len(ranks), keys % len(ranks)


def _averaged(expanded: DeviceWeights, ranks: Int64[Tensor, "n _"], k2: int) -> DeviceWeights:
    import torch

    num_images = len(ranks)

    def sum_rows(start: int, stop: int) -> tuple[Int64[Tensor, " b"], Int64[Tensor, " z"], Int32[Tensor, " z"]]:
        others = ranks[start:stop, :k2].flatten()
        source, entries = entries_of_rows(expanded, others)
        keys, places = ((source // k2) * num_images + expanded.columns[entries]).unique(return_inverse=True)
        sums = torch.zeros(len(keys), dtype=torch.int32, device=ranks.device)
        sums.index_add_(0, places, expanded.weights[entries])
        return (keys // num_images).bincount(minlength=stop - start), keys % num_images, sums

    members = len(expanded.columns) // max(1, num_images)
    size = block_rows(ranks.device, 80 * k2 * (members + 1))
    return _joined(in_device_blocks(sum_rows, num_images, size), k2 * expanded.scale)


def entries_of_rows(
    weights: DeviceWeights, rows: Int64[Tensor, " m"]
) -> tuple[Int64[Tensor, " y"], Int64[Tensor, " y"]]:
    """List the entries of some rows, one row after the other: index into `rows`, and place of the entry."""
    begins = weights.starts[rows]
    return spans(begins, weights.starts[rows + 1] - begins)


def spans(begins: Int64[Tensor, " m"], sizes: Int64[Tensor, " m"]) -> tuple[Int64[Tensor, " y"], Int64[Tensor, " y"]]:
    """Count up from each of `begins`, `sizes` numbers: index into `begins`, and the number."""
    import torch

    source = torch.arange(len(begins), device=begins.device).repeat_interleave(sizes)
    before = sizes.cumsum(0) - sizes
    return source, torch.arange(len(source), device=begins.device) + (begins - before)[source]


def _joined(
    blocks: list[tuple[Int64[Tensor, " b"], Int64[Tensor, " z"], Int32[Tensor, " z"]]], scale: int
) -> DeviceWeights:
    import torch

    sizes, columns, weights = (torch.cat(part) for part in zip(*blocks, strict=True))
    return DeviceWeights(_starts(sizes), columns, weights, scale)


def _starts(sizes: Int64[Tensor, " b"]) -> Int64[Tensor, " b_plus_one"]:
    import torch

    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of weights, transposed: `rows` and `weights` column by column, the rows ascending within a column.

    For each entry of the original order: its row (`row_of`), the place of the next entry of its column (`later`), and
    the number of later entries there (`left`).
    """

    rows: Int64[Tensor, " z"]
    weights: Int32[Tensor, " z"]
    row_of: Int64[Tensor, " z"]
    later: Int64[Tensor, " z"]
    left: Int64[Tensor, " z"]


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
    """`RowJoin.pairs` within `eps`, on the host, ascending by source and then by target; None if there are too many.

    Cost: A sum for each pair of images and an addition for each pair of entries of a column; 2 GB on a GPU.
    """
    least, num_images, found = smallest_overlap(eps, weights.scale), len(weights.starts) - 1, 0

    def join(start: int, stop: int) -> tuple[Int32[np.ndarray, " e"], ...]:
        nonlocal found
        if found > jaccard.MOST_PAIRS:
            return (np.empty(0, np.int32),) * 3
        overlaps = _overlaps(weights, columns, start, stop)
        near = (overlaps >= least).nonzero().flatten()
        fields = (near // num_images + start, near % num_images, overlaps[near])
        on_host = tuple(field.int().cpu().numpy() for field in fields)
        found += len(near)  # last, because a block that does not fit is repeated
        return on_host

    blocks = in_device_blocks(join, num_images, _rows(weights))
    if found > jaccard.MOST_PAIRS:
        return None
    source, target, overlap = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return RadiusGraph(num_images, source, target, overlap.astype(np.int64), weights.scale, eps)


def count_pairs_on_device(weights: DeviceWeights, columns: Columns, eps_values: Sequence[float]) -> tuple[int, ...]:
    """Count the pairs within each of several radii, without holding them; cost as `pairs_on_device`."""
    import torch

    least = [smallest_overlap(eps, weights.scale) for eps in eps_values]

    def count(start: int, stop: int) -> Int64[Tensor, " radii"]:
        overlaps = _overlaps(weights, columns, start, stop)
        return torch.stack([(overlaps >= value).sum() for value in least])

    blocks = in_device_blocks(count, len(weights.starts) - 1, _rows(weights))
    return tuple(torch.stack(blocks).sum(dim=0).tolist())


def listed_overlaps_on_device(
    weights: DeviceWeights, ranks: Int64[Tensor, "n k"], images: Int64[Tensor, " b"]
) -> Int64[np.ndarray, "b others"]:
    """Overlaps of `images` with the other images of their lists, in list order, on the host."""
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
    """Rows of sums in a block: a sum and the products added to it take 16 bytes."""
    return block_rows(weights.starts.device, 16 * (len(weights.starts) - 1))


def _overlaps(weights: DeviceWeights, columns: Columns, start: int, stop: int) -> Int32[Tensor, " sums"]:
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
