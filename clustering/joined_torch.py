"""From features to the radius graph with diagnostics, on a torch device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from clustering.arithmetic_torch import full_precision
from clustering.jaccard import graph_within_limit, overlap_distances
from clustering.jaccard_torch import (
    count_pairs_on_device,
    listed_overlaps_on_device,
    pairs_on_device,
    transposed,
    weights_on_device,
)
from clustering.labelling import Joined, distance_quantiles, images_for_quantiles, list_length
from clustering.neighbours import nearest_neighbours
from clustering.neighbours_torch import (
    in_merged_order,
    ranks_between_on_device,
    ranks_on_device,
    search_with_faiss,
)
from clustering.rows import check_unit_rows

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32, Int64
    from torch import Tensor

    from clustering.joint import BalancedLengths


def torch_device(name: str) -> torch.device:
    """Turn "cuda" or "cuda:1" into an existing device with its number.

    Raises:
        ValueError: There is no such device.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is not a device: use 'cpu', 'cuda' or 'cuda:N'") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"clustering does not run on {name!r}: use 'cpu', 'cuda' or 'cuda:N'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name!r}; GPUs here: {torch.cuda.device_count()}")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def join_on_device(
    features: Float32[np.ndarray, "n d"],
    *,
    k1: int,
    k2: int,
    eps: float,
    wider: Sequence[float],
    k1_counts_self: bool,
    neighbour_method: Literal["exact", "ivf", "hnsw"],
    device: torch.device,
) -> Joined:
    """`join_on_cpu` on a device: the same pairs and overlaps to the last bit, sorted by source and then by target.

    Approximate neighbours are searched on the CPU.

    Cost: The features, 8 k1 bytes an image, some 3 kB an image for weights, and about 6 GB for blocks on a GPU, or less
    if it has less.
    """
    import torch

    check_unit_rows(features)
    with memory_named(features, device), full_precision(device):
        began = perf_counter()
        features = np.ascontiguousarray(features)
        rows = torch.tensor(features, device=device)  # a copy, because torch does not take read-only arrays
        length = min(list_length(k1, k1_counts_self), len(rows))
        ranks, recall, search = _search(features, rows, length, neighbour_method)
        return join_ranks(
            rows, ranks, k1=k1, k2=k2, eps=eps, wider=wider, began=began, k1_counts_self=k1_counts_self,
            recall=recall, search=search,
        )  # fmt: skip


def join_balanced_on_device(
    features: Float32[np.ndarray, "n d"],
    num_visible: int,
    lengths: BalancedLengths,
    *,
    eps: float,
    wider: Sequence[float],
    device: torch.device,
) -> Joined:
    """Join the images of both modalities (at least one image) on lists as `balanced_lists` gives them.

    Cost as `join_on_device`; faiss-gpu is not used.
    """
    import torch

    check_unit_rows(features)
    with memory_named(features, device), full_precision(device):
        began = perf_counter()
        rows = torch.tensor(features, device=device)
        parts = range(num_visible), range(num_visible, len(rows))
        halves = []
        for targets, length in zip(parts, (lengths.visible, lengths.infrared), strict=True):
            if length:
                halves.append(torch.cat([ranks_between_on_device(rows, queries, targets, length) for queries in parts]))
        return join_ranks(
            rows, in_merged_order(rows, torch.cat(halves, dim=1)), k1=lengths.listed, k2=lengths.averaged_in_all,
            eps=eps, wider=wider, began=began, search=f"torch {device}, balanced",
            averaged=torch.cat([half[:, : lengths.averaged] for half in halves], dim=1),
        )  # fmt: skip


@contextmanager
def memory_named(features: Float32[np.ndarray, "n d"], device: torch.device) -> Iterator[None]:
    """Turn a lack of device memory into a `ValueError` with the size of the features."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        num_images, width = features.shape
        raise ValueError(
            f"the memory of {device} is too small for {num_images:,} x {width:,} features and their lists: use the CPU"
        ) from error


def join_ranks(
    rows: Float32[Tensor, "n d"],
    ranks: Int64[Tensor, "n k"],
    *,
    k1: int,
    k2: int,
    eps: float,
    wider: Sequence[float],
    began: float,
    search: str,
    recall: float | None = None,
    k1_counts_self: bool = True,
    averaged: Int64[Tensor, "n _"] | None = None,
) -> Joined:
    """`join_lists` on a device, inside `full_precision`; `began` is the time at which the search started."""
    import torch

    in_degree = int(ranks.flatten().bincount().max())  # the transfer also waits for the device
    searched = perf_counter()
    weights = weights_on_device(rows, ranks, k1=k1, k2=k2, k1_counts_self=k1_counts_self, averaged=averaged)
    columns = transposed(weights)
    graph = graph_within_limit(
        lambda radius: pairs_on_device(weights, columns, radius),
        lambda radii: count_pairs_on_device(weights, columns, radii),
        eps,
        wider,
    )
    images = torch.tensor(images_for_quantiles(len(rows)), device=rows.device)
    listed = overlap_distances(listed_overlaps_on_device(weights, ranks, images), weights.scale)
    return Joined(
        graph=graph,
        ranks=ranks.int().cpu().numpy(),
        distance_quantiles=distance_quantiles(listed),
        max_in_degree=in_degree,
        recall=recall,
        search=search,
        neighbours_seconds=searched - began,
        graph_seconds=perf_counter() - searched,
    )


def _search(
    features: Float32[np.ndarray, "n d"],
    rows: Float32[Tensor, "n d"],
    length: int,
    method: Literal["exact", "ivf", "hnsw"],
) -> tuple[Int64[Tensor, "n k"], float | None, str]:
    """Neighbour lists on the device, their recall, and a description of the search."""
    import torch

    if method != "exact":
        neighbours = nearest_neighbours(features, length, method=method)
        return torch.tensor(neighbours.ranks, device=rows.device).long(), neighbours.recall, neighbours.search
    by_faiss = search_with_faiss(features, length, rows.device)
    if by_faiss is not None:
        return torch.tensor(by_faiss, device=rows.device).long(), None, f"faiss-gpu {rows.device}"
    return ranks_on_device(rows, length), None, f"torch {rows.device}"
