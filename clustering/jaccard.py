"""The k-reciprocal Jaccard distance, as a sparse graph of the pairs within a radius."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from clustering.jaccard_kernels import (
    count_pairs,
    expansion_members,
    expansion_sizes,
    list_pairs,
    listed_overlaps,
    member_powers,
    member_weights,
    mutual_neighbours,
    sum_sizes,
    sum_weights,
    transpose,
)
from clustering.neighbours import Neighbours
from clustering.parallel import over_blocks
from clustering.rows import check_unit_rows

logger = logging.getLogger(__name__)

Graph = TypeVar("Graph")


class TooManyPairsError(ValueError):
    """More pairs of images lie within eps than can be held; the message names a radius that would fit."""


MOST_PAIRS = 1 << 31  # 34 GB of pairs, 60 GB while they are gathered
CURVE_EPS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)
LARGEST_SCALE = 1 << 30  # so that a row's sum fits 32 bits, with room for 2 - m


@dataclass(frozen=True, slots=True)
class NeighbourhoodWeights:
    """Each image's neighbourhood as weights that sum to one: compressed sparse rows of integers.

    `weights` are multiples of 1 / scale, and every row sums to exactly `scale`, the largest multiple of k2 up to 2^30.
    """

    starts: Int64[np.ndarray, " n_plus_one"]
    columns: Int32[np.ndarray, " z"]
    weights: Int32[np.ndarray, " z"]
    scale: int


@dataclass(frozen=True, slots=True)
class RadiusGraph:
    """All pairs of images within a Jaccard distance, each once; overlaps, because sparse matrices drop distance 0.

    `source` has the smaller image index of each pair, `target` the larger one. `overlap` is the shared weight, the sum
    of the smaller weights, as a multiple of 1 / scale; `scale`, 2^30 or a little less, is an image's with itself.
    """

    num_images: int
    source: Int32[np.ndarray, " e"]
    target: Int32[np.ndarray, " e"]
    overlap: Int64[np.ndarray, " e"]
    scale: int
    eps: float


def overlap_distances(overlap: Int64[np.ndarray, "..."], scale: int) -> Float64[np.ndarray, "..."]:
    """Turn shared weights m, from 0 to `scale`, into Jaccard distances 1 - m / (2 - m) in [0, 1]."""
    distances: Float64[np.ndarray, "..."] = np.maximum(0.0, 1.0 - overlap / (2 * scale - overlap))
    return distances


def smallest_overlap(eps: float, scale: int) -> int:
    """The smallest shared weight within `eps`, in [0, 1): d <= eps exactly where m >= 2 (1 - eps) / (2 - eps)."""
    if not 0.0 <= eps < 1.0:
        raise ValueError(f"eps must be at least 0 and below 1, not {eps}")
    near = int(2.0 * (1.0 - eps) / (2.0 - eps) * scale)
    candidates = np.arange(max(1, near - 4), near + 5)  # the formula rounds, so compare distances
    return int(candidates[overlap_distances(candidates, scale) <= eps][0])


def neighbourhood_weights(
    features: Float32[np.ndarray, "n d"],
    neighbours: Neighbours,
    *,
    k1: int,
    k2: int,
    k1_counts_self: bool = True,
    averaged: Int32[np.ndarray, "n _"] | None = None,
) -> NeighbourhoodWeights:
    """Weigh each image's expanded reciprocal neighbourhood, averaged over its first k2 neighbours.

    Args:
        features: Unit rows.
        neighbours: Lists of at least k1 images (one more if k1 does not count the image itself), or of all images.
        k1: Length of the reciprocal lists; half as long for the expansion. Clamped to n.
        k2: Neighbours, the image itself first, over which the weights are averaged; 1 does not average. Clamped to n.
        k1_counts_self: Whether the image itself is one of the k1.
        averaged: Lists of at least k2 images, over whose first k2 the weights are averaged instead.

    Cost: n k1 (k1 + d) steps, 16 bytes a member; a row has about 2 k1 to 4 k1 members.

    Source: Zhong et al., CVPR 2017, sections 3.2 to 3.4; CzAngus/CCLNet, util/faiss_rerank.py.

    Differs: Weights are rounded to multiples of k2 / 2^30, which moves a distance by less than 1e-6 and makes all later
    sums exact: two images that share four of six neighbours' rows, and nothing else, have distance exactly 1/2. The
    two-thirds rule of the expansion is compared in integers.
    """
    num_images = len(features)
    k1, k2 = limited_lengths(num_images, k1, k2)
    width = min(k1 + (0 if k1_counts_self else 1), num_images)
    _check_lists(num_images, neighbours, width)
    check_unit_rows(features)
    half_width = min(round(k1 / 2) + 1, width)
    mutual = _mutual(neighbours, width)
    half = _mutual(neighbours, half_width)
    unit = LARGEST_SCALE // k2
    sizes = np.empty(num_images, np.int64)
    over_blocks(partial(expansion_sizes, *mutual, *half, sizes), num_images)
    expanded = _empty_rows(sizes, unit)
    pattern = expanded.starts, expanded.columns
    over_blocks(partial(expansion_members, *mutual, *half, *pattern), num_images)
    powers = np.empty(len(expanded.columns), np.int64)
    over_blocks(partial(member_powers, np.ascontiguousarray(features), *pattern, powers), num_images)
    over_blocks(partial(member_weights, unit, *pattern, powers, expanded.weights), num_images)
    return expanded if k2 == 1 else _averaged(expanded, neighbours.ranks if averaged is None else averaged, k2)


def limited_lengths(num_images: int, k1: int, k2: int) -> tuple[int, int]:
    """Clamp k1 and k2 (from 1 to k1) to the number of images, and to at least 1."""
    if not 1 <= k2 <= k1:
        raise ValueError(f"k2 must be from 1 to k1, and k1 at least 1: k1 is {k1}, k2 is {k2}")
    return min(k1, max(1, num_images)), min(k2, max(1, num_images))


def _check_lists(num_images: int, neighbours: Neighbours, width: int) -> None:
    if len(neighbours.ranks) != num_images or neighbours.ranks.shape[1] < width:
        raise ValueError(
            f"{num_images} images need as many lists of {width} neighbours, "
            f"not {len(neighbours.ranks)} of {neighbours.ranks.shape[1]}"
        )


def _mutual(neighbours: Neighbours, width: int) -> tuple[Int32[np.ndarray, "n width"], Int32[np.ndarray, " n"]]:
    """Reciprocal neighbours of each image among the first `width`, and their number."""
    members = np.empty((len(neighbours.ranks), width), np.int32)
    counts = np.empty(len(members), np.int32)
    over_blocks(partial(mutual_neighbours, neighbours.ranks, width, members, counts), len(members))
    return members, counts


def _empty_rows(sizes: Int64[np.ndarray, " n"], scale: int) -> NeighbourhoodWeights:
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return NeighbourhoodWeights(starts, np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32), scale)


def _averaged(rows: NeighbourhoodWeights, lists: Int32[np.ndarray, "n _"], k2: int) -> NeighbourhoodWeights:
    """Mean of the rows of the first k2 images of each list: their sum, at k2 times the scale."""
    sizes = np.empty(len(lists), np.int64)
    over_blocks(partial(sum_sizes, lists, k2, rows.starts, rows.columns, sizes), len(sizes))
    sums = _empty_rows(sizes, k2 * rows.scale)
    fill = partial(sum_weights, lists, k2, rows.starts, rows.columns, rows.weights)
    over_blocks(partial(fill, sums.starts, sums.columns, sums.weights), len(sizes))
    return sums


def radius_graph(weights: NeighbourhoodWeights, eps: float, *, wider: Sequence[float] = ()) -> RadiusGraph:
    """Find every pair of images whose Jaccard distance is at most `eps`, by a min-sum join of the rows of weights.

    The largest of `wider` is used instead unless it has too many pairs. Pairs are in ascending order of source,
    whatever the number of threads.

    Raises:
        TooManyPairsError: More than 2^31 pairs are within eps; the message names a radius that fits.

    Cost: The sum over images of (the number of rows that contain the image)^2 / 2; 8 bytes a weight and 16 bytes a
    pair. Quadratic in n if an image is in every list.
    """
    joined = RowJoin(weights.starts, weights.columns, weights.weights)

    def join(radius: float) -> RadiusGraph | None:
        pairs = joined.pairs(smallest_overlap(radius, weights.scale))
        if pairs is None:
            return None
        source, target, overlap = (np.ascontiguousarray(column) for column in pairs.T)
        return RadiusGraph(len(weights.starts) - 1, source, target, overlap.astype(np.int64), weights.scale, radius)

    def count(radii: Sequence[float]) -> tuple[int, ...]:
        return joined.count([smallest_overlap(radius, weights.scale) for radius in radii])

    return graph_within_limit(join, count, eps, wider)


def listed_distances(
    weights: NeighbourhoodWeights, neighbours: Neighbours, images: Int64[np.ndarray, " b"]
) -> Float64[np.ndarray, "b others"]:
    """Jaccard distances of `images` to the other images of their lists, in list order, the image itself excluded."""
    overlaps = np.empty((len(images), neighbours.ranks.shape[1]), np.int64)
    listed_overlaps(images, neighbours.ranks, weights.starts, weights.columns, weights.weights, overlaps)
    return overlap_distances(overlaps[:, 1:], weights.scale)


class RowJoin:
    """Min-sum join of rows of integer weights, on all cores; a row's sum fits 32 bits. Cost: 8 bytes a weight."""

    def __init__(
        self,
        starts: Int64[np.ndarray, " n_plus_one"],
        columns: Int32[np.ndarray, " z"],
        weights: Int32[np.ndarray, " z"],
    ) -> None:
        self._num_images = len(starts) - 1
        column_starts = np.zeros(len(starts), np.int64)
        rows, row_weights = np.empty_like(columns), np.empty_like(weights)
        transpose(starts, columns, weights, column_starts, rows, row_weights)
        self._arrays = starts, columns, column_starts, rows, row_weights

    def pairs(self, least: int) -> Int32[np.ndarray, "e 3"] | None:
        """(i, j, overlap) for i < j with an overlap of at least `least` (>= 1), ascending by i; None if too many."""
        lengths: list[int] = []

        def list_block(start: int, stop: int) -> Int32[np.ndarray, "e 3"]:
            if sum(lengths) > MOST_PAIRS:
                return np.empty((0, 3), np.int32)
            pairs = list_pairs(self._arrays, least, MOST_PAIRS, start, stop)
            lengths.append(len(pairs))
            return pairs

        blocks = over_blocks(list_block, self._num_images)
        if sum(lengths) > MOST_PAIRS:
            return None
        return np.concatenate([np.empty((0, 3), np.int32), *blocks])

    def count(self, least: Sequence[int]) -> tuple[int, ...]:
        """Count the pairs that overlap by at least each of these, in the time of one join and without holding them."""
        thresholds = np.array(least, np.int64)
        blocks = over_blocks(partial(count_pairs, self._arrays, thresholds), self._num_images)
        return tuple(int(sum(block[place] for block in blocks)) for place in range(len(least)))


def graph_within_limit(
    join: Callable[[float], Graph | None],
    count: Callable[[Sequence[float]], Sequence[int]],
    eps: float,
    wider: Sequence[float],
) -> Graph:
    """Join at the largest of `wider` (>= eps) whose pairs can be held; `count` is called only if the first join fails.

    Raises:
        TooManyPairsError: Too many pairs are within eps; the message names a radius that fits.
    """
    graph = join(max((eps, *wider)))
    if graph is not None:
        return graph
    radii = sorted({eps, *wider, *CURVE_EPS})
    pairs = dict(zip(radii, count(radii), strict=True))
    fitting = [radius for radius in radii if pairs[radius] <= MOST_PAIRS]
    if eps not in fitting:
        advice = (
            f"eps {fitting[-1]:g} would fit with {pairs[fitting[-1]]:,}"
            if fitting
            else f"even eps {radii[0]:g} has {pairs[radii[0]]:,}, so nearly all features are equal"
        )
        raise TooManyPairsError(f"eps {eps:g} has {pairs[eps]:,} pairs of images, more than {MOST_PAIRS:,}: {advice}")
    logger.warning("too many pairs beyond distance %g: the eps curve ends there", fitting[-1])
    graph = join(fitting[-1])
    assert graph is not None  # it was counted
    return graph
