"""From features to the radius graph with diagnostics, on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from clustering.jaccard import RadiusGraph, listed_distances, neighbourhood_weights, radius_graph
from clustering.neighbours import nearest_neighbours

QUANTILE_IMAGES = 2_000  # enough for a median in an error message; always the same images


@dataclass(frozen=True, slots=True)
class Joined:
    """The radius graph of some images, diagnostics as in `Labelling`, and seconds of the search and of the rest."""

    graph: RadiusGraph
    distance_quantiles: dict[str, float] | None
    max_in_degree: int
    recall: float | None
    search: str
    neighbours_seconds: float
    graph_seconds: float


def join_on_cpu(
    features: Float32[np.ndarray, "n d"],
    *,
    k1: int,
    k2: int,
    eps: float,
    wider: Sequence[float],
    k1_counts_self: bool,
    neighbour_method: Literal["exact", "ivf", "hnsw"],
) -> Joined:
    """Search, weigh and join with faiss and compiled loops; arguments as in `label_images` and `radius_graph`.

    Raises:
        ValueError: A row is not finite or not of unit length, or too many pairs are within eps.
    """
    began = perf_counter()
    neighbours = nearest_neighbours(features, list_length(k1, k1_counts_self), method=neighbour_method)
    searched = perf_counter()
    weights = neighbourhood_weights(features, neighbours, k1=k1, k2=k2, k1_counts_self=k1_counts_self)
    graph = radius_graph(weights, eps, wider=wider)
    quantiles = distance_quantiles(listed_distances(weights, neighbours, images_for_quantiles(len(features))))
    return Joined(
        graph=graph,
        distance_quantiles=quantiles,
        max_in_degree=int(np.bincount(neighbours.ranks.ravel()).max(initial=0)),
        recall=neighbours.recall,
        search=neighbours.search,
        neighbours_seconds=searched - began,
        graph_seconds=perf_counter() - searched,
    )


def list_length(k1: int, k1_counts_self: bool) -> int:
    """Required length of the neighbour lists."""
    return k1 if k1_counts_self else k1 + 1


def images_for_quantiles(num_images: int) -> Int64[np.ndarray, "b"]:
    """Choose at most QUANTILE_IMAGES images, spread evenly."""
    return np.linspace(0, num_images - 1, min(num_images, QUANTILE_IMAGES)).astype(np.int64)


def distance_quantiles(distances: Float64[np.ndarray, "b others"]) -> dict[str, float] | None:
    """1, 5 and 50 % quantiles of Jaccard distances to listed images; None without any."""
    if not distances.size:
        return None
    low, lower, middle = np.quantile(distances, (0.01, 0.05, 0.50)).tolist()
    return {"p01": low, "p05": lower, "p50": middle}
