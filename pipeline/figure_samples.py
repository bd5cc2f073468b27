"""What a figure shows of a round: a bounded part, whatever the number of images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.linalg import eigh

from clustering.matching import Matching
from clustering.prototypes import cluster_prototypes
from models.modality import PerModality

NOBODY = -1
"""Stands for images that belong to none of the pairs shown."""


@dataclass(frozen=True, slots=True, eq=False)
class MapSample:
    """Some images of one modality: their rows among the features, and which of the pairs shown each belongs to."""

    rows: Int64[np.ndarray, "s"]
    pairs: Int64[np.ndarray, "s"]


def sample_pairs(matching: Matching, count: int) -> Int64[np.ndarray, "p"]:
    """Which pairs a figure shows: evenly spaced from the most to the least similar one, both ends included.

    Returns:
        Positions in the matching, the most similar first; all of them where there are no more than `count`.
    """
    order = np.argsort(-matching.similarity, kind="stable")
    chosen: Int64[np.ndarray, "p"] = order[spread(len(order), count)].astype(np.int64)
    return chosen


def spread(total: int, count: int) -> Int64[np.ndarray, "p"]:
    """At most `count` of the numbers 0 ... total-1, evenly spaced, with the first and the last.

    >>> spread(9, 3).tolist(), spread(2, 3).tolist(), spread(0, 3).tolist()
    ([0, 4, 8], [0, 1], [])
    """
    return np.linspace(0, max(0, total - 1), min(total, count)).round().astype(np.int64)


def prototypes_of(
    vectors: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, "n"], clusters: Int64[np.ndarray, "p"]
) -> Float32[np.ndarray, "p d"]:
    """The prototypes of some clusters, in their order; the images of the others are not read.

    Args:
        vectors: Unit rows.
        labels: Cluster of each image.
        clusters: Each at most once, none without an image.
    """
    rows = np.flatnonzero(np.isin(labels, clusters))
    ascending = np.sort(clusters)
    prototypes = cluster_prototypes(vectors[rows], np.searchsorted(ascending, labels[rows]))
    ordered: Float32[np.ndarray, "p d"] = prototypes[np.searchsorted(ascending, clusters)]
    return ordered


def sample_map(
    labels: PerModality[Int64[np.ndarray, "n"]],
    matching: Matching,
    generator: np.random.Generator,
    *,
    pairs: int = 10,
    images: int = 15,
    others: int = 100,
) -> PerModality[MapSample]:
    """Draw images for a map: those of some pairs of clusters, and some of the others around them.

    Args:
        labels: Cluster of each image; no true identity is asked for.
        matching: The pairs.
        generator: Decides which pairs, and which images.
        pairs: How many pairs are shown in colours of their own.
        images: How many images of each cluster at most.
        others: How many other images of each modality at most.
    """
    count = len(matching.visible)
    chosen = np.sort(generator.choice(count, size=min(pairs, count), replace=False))
    clusters = PerModality(matching.visible[chosen], matching.infrared[chosen])

    def draw(own: Int64[np.ndarray, "n"], shown: Int64[np.ndarray, "p"]) -> MapSample:
        members = [_some(np.flatnonzero(own == cluster), images, generator) for cluster in shown]
        around = _some(np.flatnonzero(~np.isin(own, shown)), others, generator)
        numbers = [np.full(len(rows), number) for number, rows in enumerate(members)]
        return MapSample(
            np.concatenate([around, *members]).astype(np.int64),
            np.concatenate([np.full(len(around), NOBODY), *numbers]).astype(np.int64),
        )

    return labels.map_with(draw, clusters)


def principal_plane(vectors: Float32[np.ndarray, "n d"]) -> tuple[Float64[np.ndarray, "n 2"], float]:
    """Project vectors onto the plane in which they differ most (PCA); the same vectors give the same signs.

    Returns:
        Their places in the plane, and the share of the variance that it holds; fewer than two directions give zeros.

    Cost: n x n numbers and two of their eigenvectors: 0.05 s for 500 vectors of length 2,048.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    products = centred @ centred.T
    places, shown = np.zeros((len(vectors), 2)), min(2, len(vectors))
    total = float(np.trace(products))
    if total <= 0:
        return places, 0.0
    values, directions = eigh(products, subset_by_index=(len(vectors) - shown, len(vectors) - 1))
    values = np.clip(values[::-1], 0, None)
    places[:, :shown] = directions[:, ::-1] * np.sqrt(values)
    largest = np.abs(places).argmax(axis=0)
    places *= np.where(places[largest, (0, 1)] < 0, -1.0, 1.0)
    return places, float(values.sum()) / total


def _some(rows: Int64[np.ndarray, "m"], count: int, generator: np.random.Generator) -> Int64[np.ndarray, "s"]:
    drawn: Int64[np.ndarray, "s"] = generator.choice(rows, size=min(count, len(rows)), replace=False)
    return drawn
