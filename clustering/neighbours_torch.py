"""Exact nearest neighbours on a torch device, by faiss-gpu or by torch: the lists that `nearest_neighbours` gives."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from clustering.arithmetic_torch import block_rows, in_device_blocks, row_dots
from clustering.neighbours import SPARE_CANDIDATES, TIE_TOLERANCE, search_all_pairs

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float32, Int32, Int64
    from torch import Tensor

logger = logging.getLogger(__name__)
# On a card that faiss was not built for, it aborts the process instead of raising.
TRIAL = """
import sys, faiss, numpy
rows = numpy.eye(64, dtype="float32")
faiss.knn_gpu(faiss.StandardGpuResources(), rows, rows, 4, metric=faiss.METRIC_INNER_PRODUCT, device=int(sys.argv[1]))
"""
TRIAL_SECONDS = 120
LONGEST_LISTS = 2_048  # that faiss selects on a GPU


def ranks_on_device(rows: Float32[Tensor, "n d"], k: int) -> Int64[Tensor, "n k"]:
    """List the k (from 1 to n) most similar images of every image, itself first, ties by float64, then by index.

    Call inside `full_precision`; less precise products raise `ValueError`. Float32 matrix products give k + 8
    candidates, which are ordered by the float64 inner products of the CPU path. If a tie may continue beyond them,
    every row within rounding is scored.

    Cost: n^2 d multiplications in float32 and n (k + 8) d in float64; a block of similarities and the gathered rows of
    its candidates, up to 6 GB on a GPU.
    """
    return ranks_between_on_device(rows, range(len(rows)), range(len(rows)), k)


def ranks_between_on_device(
    rows: Float32[Tensor, "n d"], queries: range, targets: range, k: int
) -> Int64[Tensor, "q k"]:
    """The lists of `search_between` on a device, inside `full_precision`. Cost as `ranks_on_device`."""
    import torch

    images = torch.arange(queries.start, queries.stop, device=rows.device)
    if not k or not len(images):
        return images.new_zeros((len(images), k))
    if queries == targets:
        return torch.cat([images[:, None], _most_similar(rows, images, targets, k - 1)], dim=1)
    return _most_similar(rows, images, targets, k)


def _most_similar(
    rows: Float32[Tensor, "n d"], images: Int64[Tensor, " q"], targets: range, wanted: int
) -> Int64[Tensor, "q wanted"]:
    """The `wanted` most similar targets of each image, itself excluded; the targets hold all images or none."""
    import torch

    num_others = len(targets) - (bool(len(images)) and int(images[0]) in targets)
    width = min(wanted + SPARE_CANDIDATES, num_others)

    def search(start: int, stop: int) -> tuple[Int64[Tensor, "b wanted"], Bool[Tensor, " b"]]:
        similarities, found = _similarities(rows, images[start:stop], targets).topk(width, dim=1)
        settled = torch.ones(stop - start, dtype=torch.bool, device=rows.device)
        if 0 < wanted < num_others:
            settled = similarities[:, wanted - 1] - similarities[:, -1] > TIE_TOLERANCE
        return _in_order(rows, images[start:stop], found + targets.start, similarities)[:, :wanted], settled

    size = block_rows(rows.device, 4 * len(targets))
    lists, settled = (torch.cat(part) for part in zip(*in_device_blocks(search, len(images), size), strict=True))
    unsettled = (~settled).nonzero().flatten()
    if len(unsettled):
        again = in_device_blocks(
            lambda start, stop: _among_ties(rows, images[unsettled[start:stop]], targets, wanted),
            len(unsettled), max(1, size // 16),
        )  # fmt: skip
        lists[unsettled] = torch.cat(again)
    return lists


def _similarities(
    rows: Float32[Tensor, "n d"], images: Int64[Tensor, " b"], targets: range
) -> Float32[Tensor, "b targets"]:
    """Similarities of some images to the targets, minus infinity to themselves."""
    similarities = rows[images] @ rows[targets.start : targets.stop].T
    if len(images) and int(images[0]) in targets:
        similarities.scatter_(1, images[:, None] - targets.start, float("-inf"))
    return similarities


def in_merged_order(rows: Float32[Tensor, "n d"], lists: Int64[Tensor, "n k"]) -> Int64[Tensor, "n k"]:
    """Each image's list in the order of `ranks_on_device`: itself first, float64 similarity, smaller index."""
    import torch

    images = torch.arange(len(rows), device=rows.device)
    lists = lists.sort(dim=1).values
    scores = row_dots(rows, images.repeat_interleave(lists.shape[1]), lists.flatten()).view(lists.shape)
    scores[lists == images[:, None]] = float("inf")
    return lists.gather(1, scores.sort(dim=1, descending=True, stable=True).indices)


def _in_order(
    rows: Float32[Tensor, "n d"],
    images: Int64[Tensor, " b"],
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


def _among_ties(
    rows: Float32[Tensor, "n d"], images: Int64[Tensor, " b"], targets: range, wanted: int
) -> Int64[Tensor, "b wanted"]:
    """The `wanted` most similar targets among those within rounding of the last of them."""
    import torch

    similarities = _similarities(rows, images, targets)
    least = similarities.topk(wanted, dim=1).values[:, -1:] - TIE_TOLERANCE
    row, column = (similarities >= least).nonzero(as_tuple=True)
    other = column + targets.start
    by_score = row_dots(rows, images[row], other).sort(descending=True, stable=True).indices
    by_row = row[by_score].sort(stable=True).indices
    counts = row.bincount(minlength=len(images))
    first = counts.cumsum(0) - counts
    return other[by_score[by_row]][first[:, None] + torch.arange(wanted, device=rows.device)]


def search_with_faiss(
    features: Float32[np.ndarray, "n d"], k: int, device: torch.device
) -> Int32[np.ndarray, "n k"] | None:
    """List the k most similar images of every image, as on the CPU, or return None if faiss-gpu cannot.

    A separate process tests the GPU once. If faiss sees GPUs but cannot search, the reason is logged once.

    Cost: Some seconds for the first call on a device; then the features once more on the device.
    """
    import faiss  # here, as in `search_all_pairs`

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    if device.type != "cuda" or (device.index or 0) >= gpus or k + SPARE_CANDIDATES > LONGEST_LISTS:
        return None
    if not _works(device.index or 0):
        return None
    try:
        ranks, _ = search_all_pairs(features, k, gpu=device.index or 0)
    except (RuntimeError, ValueError) as error:  # out of memory, or coarse
        logger.warning("faiss did not search on %s (%s): torch does, with the same result", device, _first_line(error))
        return None
    return ranks


@cache
def _works(gpu: int) -> bool:
    """Test a small search in another process."""
    command = [sys.executable, "-c", TRIAL, str(gpu)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS)  # noqa: S603 - fixed
    except subprocess.TimeoutExpired:
        reason = f"no answer in {TRIAL_SECONDS} s"
    else:
        if done.returncode == 0:
            return True
        reason = "it is not built for this card" if "no kernel image" in done.stderr else f"exit {done.returncode}"
    logger.warning("faiss cannot search on cuda:%d (%s): torch does, with the same result", gpu, reason)
    return False


def _first_line(error: Exception) -> str:
    """The error message without the source locations that faiss appends."""
    return str(error).strip().partition("\n")[0][:200]
