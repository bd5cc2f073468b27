"""Neighbourhood weights on a torch device: the integers that `neighbourhood_weights` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clustering.arithmetic_torch import powers, row_dots, softmax_weights
from clustering.blocks_torch import block_rows, in_device_blocks
from clustering.jaccard import LARGEST_SCALE

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int32, Int64
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class DeviceWeights:
    """`NeighbourhoodWeights` on a device, the columns of each row in ascending order.

    Args:
        starts: Where each image's row starts in `columns` and `weights`; the last value is their length.
        columns: Image indices of the members.
        weights: Their weights, as multiples of 1 / scale.
        scale: What every row sums to.
    """

    starts: Int64[Tensor, "n_plus_one"]
    columns: Int64[Tensor, "z"]
    weights: Int32[Tensor, "z"]
    scale: int


def weights_on_device(
    rows: Float32[Tensor, "n d"], ranks: Int64[Tensor, "n k"], *, k1: int, k2: int, k1_counts_self: bool
) -> DeviceWeights:
    """Weigh each image's expanded reciprocal neighbourhood, averaged over its first k2 neighbours.

    Args:
        rows: Unit rows on the device.
        ranks: Neighbour lists, as long as `neighbourhood_weights` wants them.
        k1: Length of the lists in which two images must name each other, at most n.
        k2: Over how many neighbours the weights are averaged, at most n.
        k1_counts_self: Whether the image itself is one of the k1.

    Returns:
        The same integers as on the CPU.

    Cost: 30 bytes for each of an image's k1^2 / 2 candidates in a block, 12 bytes a member of the result.
    """
    width = min(k1 + (0 if k1_counts_self else 1), len(rows))
    half_width = min(round(k1 / 2) + 1, width)
    unit = LARGEST_SCALE // k2
    mutual, half = _mutual(ranks[:, :width]), _mutual(ranks[:, :half_width])

    def weigh(start: int, stop: int) -> tuple[Int64[Tensor, "b"], Int64[Tensor, "z"], Int32[Tensor, "z"]]:
        local, columns = _expanded(ranks, mutual, half, start, stop)
        sizes = local.bincount(minlength=stop - start)
        similarity_powers = powers(row_dots(rows, local + start, columns))
        return sizes, columns, softmax_weights(similarity_powers, local, _starts(sizes), unit).int()

    size = block_rows(rows.device, 32 * width * (half_width + 1))
    expanded = _joined(in_device_blocks(weigh, len(rows), size), unit)
    return expanded if k2 == 1 else _averaged(expanded, ranks, k2)


def _mutual(ranks: Int64[Tensor, "n width"]) -> Bool[Tensor, "n width"]:
    """Whether each neighbour has the image among its own."""
    import torch

    images = torch.arange(len(ranks), device=ranks.device)

    def ask_back(start: int, stop: int) -> Bool[Tensor, "b width"]:
        return (ranks[ranks[start:stop]] == images[start:stop, None, None]).any(dim=2)

    return torch.cat(in_device_blocks(ask_back, len(ranks), block_rows(ranks.device, 9 * ranks.shape[1] ** 2)))


def _expanded(
    ranks: Int64[Tensor, "n k"],
    mutual: Bool[Tensor, "n width"],
    half: Bool[Tensor, "n half_width"],
    start: int,
    stop: int,
) -> tuple[Int64[Tensor, "z"], Int64[Tensor, "z"]]:
    """Members of the expanded sets E of images start..stop: the image, counted from `start`, and the member; sorted."""
    import torch

    own, own_mutual = ranks[start:stop, : mutual.shape[1]], mutual[start:stop]
    members, members_mutual = ranks[:, : half.shape[1]][own], half[own]
    beyond_all = len(ranks)
    reciprocal = torch.where(own_mutual, own, beyond_all).sort(dim=1).values
    asked = members.flatten(1)
    places = torch.searchsorted(reciprocal, asked).clamp_(max=reciprocal.shape[1] - 1)
    shared = ((reciprocal.gather(1, places) == asked).view(members.shape) & members_mutual).sum(dim=2)
    grows = own_mutual & (3 * shared > 2 * members_mutual.sum(dim=2))  # two thirds, without rounding
    first_key = torch.arange(stop - start, device=ranks.device)[:, None] * len(ranks)
    added = (members + first_key[:, :, None])[members_mutual & grows[:, :, None]]
    keys = torch.cat([(own + first_key)[own_mutual], added]).unique()
    return keys // len(ranks), keys % len(ranks)


def _averaged(expanded: DeviceWeights, ranks: Int64[Tensor, "n k"], k2: int) -> DeviceWeights:
    """Mean of the rows of each image's first k2 neighbours: their sum, at k2 times the scale."""
    import torch

    num_images = len(ranks)

    def sum_rows(start: int, stop: int) -> tuple[Int64[Tensor, "b"], Int64[Tensor, "z"], Int32[Tensor, "z"]]:
        others = ranks[start:stop, :k2].flatten()
        source, entries = entries_of_rows(expanded, others)
        keys, places = ((source // k2) * num_images + expanded.columns[entries]).unique(return_inverse=True)
        sums = torch.zeros(len(keys), dtype=torch.int32, device=ranks.device)
        sums.index_add_(0, places, expanded.weights[entries])
        return (keys // num_images).bincount(minlength=stop - start), keys % num_images, sums

    members = len(expanded.columns) // max(1, num_images)
    size = block_rows(ranks.device, 80 * k2 * (members + 1))
    return _joined(in_device_blocks(sum_rows, num_images, size), k2 * expanded.scale)


def entries_of_rows(weights: DeviceWeights, rows: Int64[Tensor, "m"]) -> tuple[Int64[Tensor, "y"], Int64[Tensor, "y"]]:
    """List the entries of some rows, one row after the other: which of `rows` each belongs to, and where it is."""
    begins = weights.starts[rows]
    return spans(begins, weights.starts[rows + 1] - begins)


def spans(begins: Int64[Tensor, "m"], sizes: Int64[Tensor, "m"]) -> tuple[Int64[Tensor, "y"], Int64[Tensor, "y"]]:
    """Count up from each of `begins`, `sizes` numbers: which of the m each number belongs to, and the number."""
    import torch

    source = torch.arange(len(begins), device=begins.device).repeat_interleave(sizes)
    before = sizes.cumsum(0) - sizes
    return source, torch.arange(len(source), device=begins.device) + (begins - before)[source]


def _joined(
    blocks: list[tuple[Int64[Tensor, "b"], Int64[Tensor, "z"], Int32[Tensor, "z"]]], scale: int
) -> DeviceWeights:
    """Rows of weights from blocks of sizes, columns and weights."""
    import torch

    sizes, columns, weights = (torch.cat(part) for part in zip(*blocks, strict=True))
    return DeviceWeights(_starts(sizes), columns, weights, scale)


def _starts(sizes: Int64[Tensor, "b"]) -> Int64[Tensor, "b_plus_one"]:
    """Where rows of these sizes start, and where the last one ends."""
    import torch

    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
