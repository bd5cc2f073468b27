"""Exact nearest neighbours on a torch device: the lists that `nearest_neighbours` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clustering.arithmetic_torch import row_dots
from clustering.blocks_torch import block_rows, in_device_blocks
from clustering.exact_search import SPARE_CANDIDATES, TIE_TOLERANCE

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64
    from torch import Tensor


def ranks_on_device(rows: Float32[Tensor, "n d"], k: int) -> Int64[Tensor, "n k"]:
    """List the k most similar images of every image, itself first, ties by float64 and then by smaller index.

    Matrix products in float32 propose eight candidates more than there are places; these are put in order by the
    float64 inner products that the CPU uses. Where a tie may go on beyond them, every row within rounding is looked at.

    Args:
        rows: Unit rows on the device; float32 matrices must be multiplied in full precision, see `full_precision`.
        k: From 1 to n.

    Returns:
        Image indices.

    Raises:
        ValueError: The device's matrix products are less precise than float32, as measured on the candidates.

    Cost: n^2 d multiplications in float32 and n (k + 8) d in float64; a block of similarities and the gathered rows of
    its candidates, up to 6 GB on a GPU.
    """
    import torch

    num_images, wanted = len(rows), k - 1
    width = min(wanted + SPARE_CANDIDATES, num_images - 1)
    images = torch.arange(num_images, device=rows.device)

    def search(start: int, stop: int) -> tuple[Int64[Tensor, "b wanted"], Bool[Tensor, "b"]]:
        similarities, found = _similarities(rows, images[start:stop]).topk(width, dim=1)
        settled = torch.ones(stop - start, dtype=torch.bool, device=rows.device)
        if 0 < wanted < num_images - 1:
            settled = similarities[:, wanted - 1] - similarities[:, -1] > TIE_TOLERANCE
        return _in_order(rows, images[start:stop], found, similarities)[:, :wanted], settled

    size = block_rows(rows.device, 4 * num_images)
    lists, settled = (torch.cat(part) for part in zip(*in_device_blocks(search, num_images, size), strict=True))
    unsettled = images[~settled]
    if len(unsettled):
        again = in_device_blocks(
            lambda start, stop: _among_ties(rows, unsettled[start:stop], wanted), len(unsettled), max(1, size // 16)
        )
        lists[unsettled] = torch.cat(again)
    return torch.cat([images[:, None], lists], dim=1)


def _similarities(rows: Float32[Tensor, "n d"], images: Int64[Tensor, "b"]) -> Float32[Tensor, "b n"]:
    """Similarities of some images to all, minus infinity to themselves."""
    similarities = rows[images] @ rows.T
    similarities.scatter_(1, images[:, None], float("-inf"))
    return similarities


def _in_order(
    rows: Float32[Tensor, "n d"],
    images: Int64[Tensor, "b"],
    found: Int64[Tensor, "b w"],
    similarities: Float32[Tensor, "b w"],
) -> Int64[Tensor, "b w"]:
    """Candidates of each image by float64 similarity, ties by smaller index."""
    found, order = found.sort(dim=1)
    scores = row_dots(rows, images.repeat_interleave(found.shape[1]), found.flatten()).view(found.shape)
    if found.numel() and float((scores - similarities.gather(1, order)).abs().max()) > TIE_TOLERANCE / 2:
        raise ValueError(
            f"matrix products on {rows.device} are coarser than float32: unset NVIDIA_TF32_OVERRIDE, or use the CPU"
        )
    return found.gather(1, scores.sort(dim=1, descending=True, stable=True).indices)


def _among_ties(rows: Float32[Tensor, "n d"], images: Int64[Tensor, "b"], wanted: int) -> Int64[Tensor, "b wanted"]:
    """The `wanted` most similar of all images that come within rounding of the last of them."""
    import torch

    similarities = _similarities(rows, images)
    least = similarities.topk(wanted, dim=1).values[:, -1:] - TIE_TOLERANCE
    row, other = (similarities >= least).nonzero(as_tuple=True)
    by_score = row_dots(rows, images[row], other).sort(descending=True, stable=True).indices
    by_row = row[by_score].sort(stable=True).indices
    counts = row.bincount(minlength=len(images))
    first = counts.cumsum(0) - counts
    return other[by_score[by_row]][first[:, None] + torch.arange(wanted, device=rows.device)]
