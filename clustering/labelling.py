"""From features to pseudo-labels in one call, with diagnostics of their quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from clustering.communities import components, louvain
from clustering.dbscan import Clustering, EpsPoint, check_min_samples, dbscan, eps_curve, eps_point
from clustering.jaccard import (
    CURVE_EPS,
    RadiusGraph,
    limited_lengths,
    listed_distances,
    neighbourhood_weights,
    radius_graph,
    smallest_overlap,
)
from clustering.neighbours import Neighbours, nearest_neighbours
from clustering.rows import check_matrix

Method = Literal["dbscan", "components", "louvain"]

QUANTILE_IMAGES = 2_000  # enough for a median in an error message; always the same images


@dataclass(frozen=True, slots=True)
class Joined:
    """The radius graph of some images, diagnostics as in `Labelling`, and seconds of the search and of the rest."""

    graph: RadiusGraph
    ranks: Int32[np.ndarray, "n k"]
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
    """Search, weigh and join with faiss and compiled loops; arguments as in `label_images` and `radius_graph`."""
    began = perf_counter()
    neighbours = nearest_neighbours(features, list_length(k1, k1_counts_self), method=neighbour_method)
    return join_lists(
        features, neighbours, k1=k1, k2=k2, eps=eps, wider=wider, k1_counts_self=k1_counts_self,
        neighbours_seconds=perf_counter() - began,
    )  # fmt: skip


def join_lists(
    features: Float32[np.ndarray, "n d"],
    neighbours: Neighbours,
    *,
    k1: int,
    k2: int,
    eps: float,
    wider: Sequence[float],
    neighbours_seconds: float,
    k1_counts_self: bool = True,
    averaged: Int32[np.ndarray, "n _"] | None = None,
) -> Joined:
    """Weigh and join on the CPU with given lists; arguments as in `neighbourhood_weights` and `radius_graph`."""
    began = perf_counter()
    weights = neighbourhood_weights(
        features, neighbours, k1=k1, k2=k2, k1_counts_self=k1_counts_self, averaged=averaged
    )
    graph = radius_graph(weights, eps, wider=wider)
    quantiles = distance_quantiles(listed_distances(weights, neighbours, images_for_quantiles(len(features))))
    return Joined(
        graph=graph,
        ranks=neighbours.ranks,
        distance_quantiles=quantiles,
        max_in_degree=int(np.bincount(neighbours.ranks.ravel()).max(initial=0)),
        recall=neighbours.recall,
        search=neighbours.search,
        neighbours_seconds=neighbours_seconds,
        graph_seconds=perf_counter() - began,
    )


def list_length(k1: int, k1_counts_self: bool) -> int:
    """Required length of the neighbour lists."""
    return k1 if k1_counts_self else k1 + 1


def images_for_quantiles(num_images: int) -> Int64[np.ndarray, " b"]:
    """Choose at most QUANTILE_IMAGES images, spread evenly."""
    return np.linspace(0, num_images - 1, min(num_images, QUANTILE_IMAGES)).astype(np.int64)


def distance_quantiles(distances: Float64[np.ndarray, "b others"]) -> dict[str, float] | None:
    """1, 5 and 50 % quantiles of Jaccard distances to listed images; None without any."""
    if not distances.size:
        return None
    low, lower, middle = np.quantile(distances, (0.01, 0.05, 0.50)).tolist()
    return {"p01": low, "p05": lower, "p50": middle}


@dataclass(frozen=True, slots=True)
class Labelling:
    """Pseudo-labels with diagnostics.

    `num_edges` counts pairs within eps. `curve` is the clustering at eps 0.40 to 0.70 by the same method; up to a
    smaller eps if the pairs are too many to hold; "louvain", which is slow, at eps only. `distance_quantiles` ("p01",
    "p05", "p50") are of Jaccard distances of images to the others in their lists; None without others. `max_in_degree`
    is that of the k-NN graph (hubness). `k1` and `k2` are clamped to the number of images. `seconds` are those of
    "neighbours", "graph" and "dbscan" (any method, with the curve). `ranks` are the neighbour lists, from the most
    similar image; the image itself is the first. `recall` is measured on sampled images; None for an exact search.
    `search` names library, index and device.
    """

    clustering: Clustering
    num_edges: int
    curve: tuple[EpsPoint, ...]
    distance_quantiles: dict[str, float] | None
    max_in_degree: int
    k1: int
    k2: int
    seconds: dict[str, float]
    ranks: Int32[np.ndarray, "n k"]
    recall: float | None = None
    search: str = ""


def label_images(
    features: Float32[np.ndarray, "n d"],
    *,
    k1: int = 30,
    k2: int = 6,
    eps: float = 0.6,
    min_samples: int = 4,
    k1_counts_self: bool = True,
    neighbour_method: Literal["exact", "ivf", "hnsw"] = "exact",
    method: Method = "dbscan",
    device: str = "cpu",
) -> Labelling:
    """Cluster images (unit rows of one modality) on the k-reciprocal Jaccard distance.

    Degenerate results (no cluster, one cluster, no images) are returned; the caller checks them. Equal features give
    equal labels, whatever the device and the number of threads.

    Args:
        features: Not changed.
        k1: Length of the lists in which two images must contain each other. Clamped to n.
        k2: Neighbours over which a neighbourhood is averaged, from 1 to k1. Clamped to n.
        eps: Jaccard distance within which two images are neighbours, between 0 and 1.
        min_samples: Images within eps of a core image, itself included; for other methods the smallest cluster size.
        k1_counts_self: Whether the image itself is one of the k1. False makes the long lists one longer and leaves the
            half lists as they are, as in the original re-ranking.
        neighbour_method: See `nearest_neighbours`.
        method: Clustering of the graph; see `dbscan` and `communities`.
        device: "cpu", or "cuda" or "cuda:N" to search, weigh and join there.

    Raises:
        ValueError: The features are not 2-D float32 unit rows, a parameter is out of range, more than 2^31 pairs are
            within eps (the message names an eps that fits), or the device is missing or its memory too small.

    Cost: The neighbours, n^2 d; the rest grows a little faster than n: below a tenth of that at 22,258 x 2048.

    Example:
        >>> two = np.eye(2, dtype=np.float32)
        >>> label_images(np.repeat(two, 5, axis=0), k1=5, k2=2).clustering.labels
        array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    check_matrix(features)
    k1, k2 = limited_lengths(len(features), k1, k2)
    check_density(eps, min_samples)
    joined = _join(features, k1, k2, eps, k1_counts_self, neighbour_method, device)
    return labelled(joined, k1=k1, k2=k2, eps=eps, min_samples=min_samples, method=method)


def check_density(eps: float, min_samples: int) -> None:
    """Raise `ValueError` for a radius outside (0, 1) or a number of images below 1."""
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be above 0 and below 1, not {eps}")
    check_min_samples(min_samples)


def labelled(joined: Joined, *, k1: int, k2: int, eps: float, min_samples: int, method: Method) -> Labelling:
    """Cluster a radius graph; arguments as in `label_images`."""
    began = perf_counter()
    labels, curve = _cluster(joined.graph, eps, min_samples, method)
    seconds = {"neighbours": joined.neighbours_seconds, "graph": joined.graph_seconds, "dbscan": perf_counter() - began}
    return Labelling(
        clustering=labels,
        num_edges=int(np.count_nonzero(joined.graph.overlap >= smallest_overlap(eps, joined.graph.scale))),
        curve=curve,
        distance_quantiles=joined.distance_quantiles,
        max_in_degree=joined.max_in_degree,
        k1=k1,
        k2=k2,
        seconds=seconds,
        ranks=joined.ranks,
        recall=joined.recall,
        search=joined.search,
    )


def _join(
    features: Float32[np.ndarray, "n d"],
    k1: int,
    k2: int,
    eps: float,
    k1_counts_self: bool,
    neighbour_method: Literal["exact", "ivf", "hnsw"],
    device: str,
) -> Joined:
    if device == "cpu" or not len(features):
        return join_on_cpu(
            features, k1=k1, k2=k2, eps=eps, wider=CURVE_EPS, k1_counts_self=k1_counts_self,
            neighbour_method=neighbour_method,
        )  # fmt: skip
    from clustering.joined_torch import join_on_device, torch_device  # here, because torch is of no use without a GPU

    return join_on_device(
        features, k1=k1, k2=k2, eps=eps, wider=CURVE_EPS, k1_counts_self=k1_counts_self,
        neighbour_method=neighbour_method, device=torch_device(device),
    )  # fmt: skip


def _cluster(
    graph: RadiusGraph, eps: float, min_samples: int, method: Method
) -> tuple[Clustering, tuple[EpsPoint, ...]]:
    """Labels at eps, and the eps curve."""
    radii = tuple(value for value in CURVE_EPS if value <= graph.eps)
    match method:
        case "dbscan":
            return dbscan(graph, eps, min_samples), eps_curve(graph, min_samples, radii)
        case "components":
            return components(graph, eps, min_samples), eps_curve(graph, min_samples, radii, method=components)
        case "louvain":
            labels = louvain(graph, eps, min_samples)
            return labels, (eps_point(eps, labels),)
