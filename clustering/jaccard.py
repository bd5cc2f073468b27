"""The k-reciprocal Jaccard distance, as a sparse graph of the pairs within a radius."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from clustering.jaccard_kernels import (
    expansion_members,
    expansion_sizes,
    member_powers,
    member_weights,
    mutual_neighbours,
    sum_sizes,
    sum_weights,
)
from clustering.join import RowJoin
from clustering.join_kernels import listed_overlaps
from clustering.neighbours import Neighbours
from clustering.pair_limit import graph_within_limit
from clustering.parallel import over_blocks
from clustering.rows import check_unit_rows

LARGEST_SCALE = 1 << 30  # so that a row's sum fits 32 bits, with room for 2 - m


@dataclass(frozen=True, slots=True)
class NeighbourhoodWeights:
    """Each image's neighbourhood as weights that sum to one: compressed sparse rows of integers.

    Args:
        starts: Where each image's row starts in `columns` and `weights`; the last value is their length.
        columns: Image indices of the members.
        weights: Their weights, as multiples of 1 / scale.
        scale: What every row sums to, exactly: the largest multiple of k2 up to 2^30.
    """

    starts: Int64[np.ndarray, "n_plus_one"]
    columns: Int32[np.ndarray, "z"]
    weights: Int32[np.ndarray, "z"]
    scale: int


@dataclass(frozen=True, slots=True)
class RadiusGraph:
    """All pairs of images within a Jaccard distance, each once.

    Overlaps are held and not distances: exact copies have distance 0, which sparse matrices drop.

    Args:
        num_images: How many images there are, those without a pair among them.
        source: The smaller image index of each pair.
        target: The larger one.
        overlap: Shared weight of the pair, the sum of the smaller weights, as a multiple of 1 / scale.
        scale: The overlap of an image with itself, 2^30 or a little less.
        eps: The radius: every pair with a distance of at most this is here.
    """

    num_images: int
    source: Int32[np.ndarray, "e"]
    target: Int32[np.ndarray, "e"]
    overlap: Int64[np.ndarray, "e"]
    scale: int
    eps: float


def overlap_distances(overlap: Int64[np.ndarray, "..."], scale: int) -> Float64[np.ndarray, "..."]:
    """Turn shared weights m into Jaccard distances 1 - m / (2 - m).

    Args:
        overlap: Shared weights, from 0 to `scale`.
        scale: The shared weight of equal neighbourhoods.

    Returns:
        Distances in [0, 1]; 0 for equal neighbourhoods.
    """
    distances: Float64[np.ndarray, "..."] = np.maximum(0.0, 1.0 - overlap / (2 * scale - overlap))
    return distances


def jaccard_distances(graph: RadiusGraph) -> Float64[np.ndarray, "e"]:
    """Jaccard distance of each pair of the graph, in [0, graph.eps]."""
    return overlap_distances(graph.overlap, graph.scale)


def smallest_overlap(eps: float, scale: int) -> int:
    """Find the smallest shared weight within `eps`: d <= eps exactly where m >= 2 (1 - eps) / (2 - eps).

    Args:
        eps: Radius in [0, 1). From 1 on, pairs that share nothing would belong, and the graph would not be sparse.
        scale: The shared weight of equal neighbourhoods.

    Raises:
        ValueError: eps is outside [0, 1).
    """
    if not 0.0 <= eps < 1.0:
        raise ValueError(f"eps must be at least 0 and below 1, not {eps}")
    near = int(2.0 * (1.0 - eps) / (2.0 - eps) * scale)
    candidates = np.arange(max(1, near - 4), near + 5)  # the formula rounds: ask the distance itself
    return int(candidates[overlap_distances(candidates, scale) <= eps][0])


def neighbourhood_weights(
    features: Float32[np.ndarray, "n d"],
    neighbours: Neighbours,
    *,
    k1: int,
    k2: int,
    k1_counts_self: bool = True,
) -> NeighbourhoodWeights:
    """Weigh each image's expanded reciprocal neighbourhood, averaged over its first k2 neighbours.

    Args:
        features: Unit rows.
        neighbours: Lists of at least k1 images (one more where k1 does not count the image itself), or of all images.
        k1: Length of the lists in which two images must name each other; half as long for the expansion. Clamped to n.
        k2: Over how many neighbours, the image itself first, the weights are averaged; 1 leaves them as they are.
            Clamped to n.
        k1_counts_self: Whether the image itself is one of the k1.

    Returns:
        Integer weights; a row has about 2 k1 to 4 k1 members.

    Raises:
        ValueError: k1 or k2 is out of range, the lists are too short, or a row is not finite or not of unit length.

    Cost: n k1 (k1 + d) steps, 16 bytes a member.

    Source: Zhong et al., CVPR 2017, sections 3.2 to 3.4; CzAngus/CCLNet, util/faiss_rerank.py.

    Differs: Weights are rounded to multiples of k2 / 2^30, which moves a distance by less than 1e-6 and makes all sums
        that follow exact: two images that share four of six neighbours' rows, and nothing else, have distance 1/2 and
        not 1/2 give or take a rounding. The two thirds of the expansion are compared in integers.
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
    return expanded if k2 == 1 else _averaged(expanded, neighbours, k2)


def limited_lengths(num_images: int, k1: int, k2: int) -> tuple[int, int]:
    """Limit k1 and k2 to the number of images, and to 1 where there are none.

    Raises:
        ValueError: k2 is not from 1 to k1.
    """
    if not 1 <= k2 <= k1:
        raise ValueError(f"k2 must be from 1 to k1, and k1 at least 1: k1 is {k1}, k2 is {k2}")
    return min(k1, max(1, num_images)), min(k2, max(1, num_images))


def _check_lists(num_images: int, neighbours: Neighbours, width: int) -> None:
    """Refuse lists of other images, or shorter ones than the definition looks at."""
    if len(neighbours.ranks) != num_images or neighbours.ranks.shape[1] < width:
        raise ValueError(
            f"{num_images} images need as many lists of {width} neighbours, "
            f"not {len(neighbours.ranks)} of {neighbours.ranks.shape[1]}"
        )


def _mutual(neighbours: Neighbours, width: int) -> tuple[Int32[np.ndarray, "n width"], Int32[np.ndarray, "n"]]:
    """Reciprocal neighbours of each image among the first `width`, and how many they are."""
    members = np.empty((len(neighbours.ranks), width), np.int32)
    counts = np.empty(len(members), np.int32)
    over_blocks(partial(mutual_neighbours, neighbours.ranks, width, members, counts), len(members))
    return members, counts


def _empty_rows(sizes: Int64[np.ndarray, "n"], scale: int) -> NeighbourhoodWeights:
    """Room for rows of the given sizes."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return NeighbourhoodWeights(starts, np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32), scale)


def _averaged(rows: NeighbourhoodWeights, neighbours: Neighbours, k2: int) -> NeighbourhoodWeights:
    """Mean of the rows of each image's first k2 neighbours: their sum, at k2 times the scale."""
    sizes = np.empty(len(neighbours.ranks), np.int64)
    over_blocks(partial(sum_sizes, neighbours.ranks, k2, rows.starts, rows.columns, sizes), len(sizes))
    sums = _empty_rows(sizes, k2 * rows.scale)
    fill = partial(sum_weights, neighbours.ranks, k2, rows.starts, rows.columns, rows.weights)
    over_blocks(partial(fill, sums.starts, sums.columns, sums.weights), len(sizes))
    return sums


def radius_graph(weights: NeighbourhoodWeights, eps: float, *, wider: Sequence[float] = ()) -> RadiusGraph:
    """Join the rows of weights: every pair of images whose Jaccard distance is at most `eps`.

    Args:
        weights: From `neighbourhood_weights`.
        eps: Radius in [0, 1).
        wider: Larger radii that the graph is to reach as well, unless that takes too many pairs.

    Returns:
        Pairs with source < target, in ascending order of source; exact, whatever the number of threads.

    Raises:
        ValueError: More than 2^31 pairs lie within eps; the message names a radius that would fit.

    Cost: The sum over images of (the number of rows that hold the image)^2 / 2; 8 bytes a weight and 16 bytes a pair.
    An image in everybody's list makes this, and the number of pairs, quadratic in n.
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


def jaccard_graph(
    features: Float32[np.ndarray, "n d"],
    neighbours: Neighbours,
    *,
    k1: int,
    k2: int,
    eps: float,
    k1_counts_self: bool = True,
) -> RadiusGraph:
    """Find every pair within a k-reciprocal Jaccard distance of `eps`: `neighbourhood_weights`, then `radius_graph`."""
    weights = neighbourhood_weights(features, neighbours, k1=k1, k2=k2, k1_counts_self=k1_counts_self)
    return radius_graph(weights, eps)


def listed_distances(
    weights: NeighbourhoodWeights, neighbours: Neighbours, images: Int64[np.ndarray, "b"]
) -> Float64[np.ndarray, "b others"]:
    """Jaccard distances of some images to the other images of their lists, near or far.

    Args:
        weights: From `neighbourhood_weights`.
        neighbours: The lists, the image itself first.
        images: Which images.

    Returns:
        Distances in [0, 1], in the order of the lists, the image itself left out.
    """
    overlaps = np.empty((len(images), neighbours.ranks.shape[1]), np.int64)
    listed_overlaps(images, neighbours.ranks, weights.starts, weights.columns, weights.weights, overlaps)
    return overlap_distances(overlaps[:, 1:], weights.scale)
