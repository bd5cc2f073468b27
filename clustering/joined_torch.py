"""From features to the radius graph with diagnostics, on a torch device."""

from __future__ import annotations

from collections.abc import Sequence
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
from clustering.neighbours_torch import ranks_on_device, search_with_faiss
from clustering.rows import check_unit_rows

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32, Int64
    from torch import Tensor


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
    try:
        with full_precision(device):
            return _join(features, device, k1, k2, eps, wider, k1_counts_self, neighbour_method)
    except torch.OutOfMemoryError as error:
        num_images, width = features.shape
        raise ValueError(
            f"the memory of {device} is too small for {num_images:,} x {width:,} features and their lists: use the CPU"
        ) from error


def _join(
    features: Float32[np.ndarray, "n d"],
    device: torch.device,
    k1: int,
    k2: int,
    eps: float,
    wider: Sequence[float],
    k1_counts_self: bool,
    neighbour_method: Literal["exact", "ivf", "hnsw"],
) -> Joined:
    import torch

    began = perf_counter()
    features = np.ascontiguousarray(features)
    rows = torch.tensor(features, device=device)  # a copy, because torch does not take read-only arrays
    length = min(list_length(k1, k1_counts_self), len(rows))
    ranks, recall, search = _search(features, rows, length, neighbour_method)
    in_degree = int(ranks.flatten().bincount().max())  # the transfer also waits for the device
    searched = perf_counter()
    weights = weights_on_device(rows, ranks, k1=k1, k2=k2, k1_counts_self=k1_counts_self)
    columns = transposed(weights)
    graph = graph_within_limit(
        lambda radius: pairs_on_device(weights, columns, radius),
        lambda radii: count_pairs_on_device(weights, columns, radii),
        eps,
        wider,
    )
    images = torch.tensor(images_for_quantiles(len(rows)), device=device)
    listed = overlap_distances(listed_overlaps_on_device(weights, ranks, images), weights.scale)
    return Joined(
        graph=graph,
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
