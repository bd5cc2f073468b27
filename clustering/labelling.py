"""From features to pseudo-labels in one call, with the numbers that say whether the labels can be trusted."""

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from jaxtyping import Float32

from clustering.dbscan import EpsPoint, PseudoLabels, dbscan, eps_curve
from clustering.jaccard import (
    NeighbourhoodWeights,
    limited_lengths,
    listed_distances,
    neighbourhood_weights,
    radius_graph,
    smallest_overlap,
)
from clustering.neighbours import Neighbours, nearest_neighbours

CURVE_EPS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)
QUANTILE_IMAGES = 2_000  # enough for a median in an error message, and always the same ones


@dataclass(frozen=True, slots=True)
class Labelling:
    """Pseudo-labels, and how they came about.

    Args:
        labels: Cluster numbers and core images.
        num_edges: Number of pairs of images within eps.
        curve: What eps 0.40 to 0.70 would have given.
        distance_quantiles: Jaccard distances of images to the others in their lists: "p01", "p05" and "p50". None where
            no image has another in its list.
        max_in_degree: In how many lists the most wanted image is. The mean is the length of the lists; many times that
            is a hub.
        k1: The k1 that was used, at most the number of images.
        k2: The k2 that was used, at most k1.
        seconds: Time of "neighbours", "graph" and "dbscan" (with the curve).
    """

    labels: PseudoLabels
    num_edges: int
    curve: tuple[EpsPoint, ...]
    distance_quantiles: dict[str, float] | None
    max_in_degree: int
    k1: int
    k2: int
    seconds: dict[str, float]


def label_images(
    features: Float32[np.ndarray, "n d"],
    *,
    k1: int = 30,
    k2: int = 6,
    eps: float = 0.6,
    min_samples: int = 4,
    k1_counts_self: bool = True,
    neighbour_method: Literal["exact"] = "exact",
) -> Labelling:
    """Cluster images by DBSCAN on the k-reciprocal Jaccard distance.

    Degenerate results are returned, not refused: no cluster, one cluster, no images. The caller judges them.

    Args:
        features: Unit rows of the images of one modality; not changed.
        k1: Length of the lists in which two images must name each other. Clamped to n.
        k2: Over how many neighbours a neighbourhood is averaged, from 1 to k1. Clamped to n.
        eps: Jaccard distance within which two images are neighbours, in [0, 1).
        min_samples: How many images, itself among them, must lie within eps for an image to found a cluster; from 1.
        k1_counts_self: Whether the image itself is one of the k1. False makes the long lists one longer and leaves the
            half lists as they are, as in the original re-ranking.
        neighbour_method: How to find the lists; see `nearest_neighbours`.

    Returns:
        The labels with their diagnostics. Equal for equal features, whatever the number of threads.

    Raises:
        ValueError: A row is not finite or not of unit length, or a parameter is out of range.

    Cost: The neighbours, n^2 d; the rest grows a little faster than n: below a tenth of that at 22,258 x 2048.

    Example:
        >>> two = np.eye(2, dtype=np.float32)
        >>> label_images(np.repeat(two, 5, axis=0), k1=5, k2=2).labels.labels
        array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    k1, k2 = limited_lengths(len(features), k1, k2)
    began = perf_counter()
    neighbours = nearest_neighbours(features, k1 + (0 if k1_counts_self else 1), method=neighbour_method)
    searched = perf_counter()
    weights = neighbourhood_weights(features, neighbours, k1=k1, k2=k2, k1_counts_self=k1_counts_self)
    graph = radius_graph(weights, max(eps, *CURVE_EPS))
    quantiles = _distance_quantiles(weights, neighbours)
    joined = perf_counter()
    labels = dbscan(graph, eps, min_samples)
    curve = eps_curve(graph, min_samples, CURVE_EPS)
    done = perf_counter()
    return Labelling(
        labels=labels,
        num_edges=int(np.count_nonzero(graph.overlap >= smallest_overlap(eps, graph.scale))),
        curve=curve,
        distance_quantiles=quantiles,
        max_in_degree=int(np.bincount(neighbours.ranks.ravel()).max(initial=0)),
        k1=k1,
        k2=k2,
        seconds={"neighbours": searched - began, "graph": joined - searched, "dbscan": done - joined},
    )


def _distance_quantiles(weights: NeighbourhoodWeights, neighbours: Neighbours) -> dict[str, float] | None:
    """1, 5 and 50 % quantiles of the distances to listed images, over at most QUANTILE_IMAGES images spread evenly."""
    num_images = len(neighbours.ranks)
    images = np.linspace(0, num_images - 1, min(num_images, QUANTILE_IMAGES)).astype(np.int64)
    distances = listed_distances(weights, neighbours, images)
    if not distances.size:
        return None
    low, lower, middle = np.quantile(distances, (0.01, 0.05, 0.50)).tolist()
    return {"p01": low, "p05": lower, "p50": middle}
