"""k-reciprocal re-ranking: transductive, and therefore never a headline number."""

from functools import partial

import numpy as np
from jaxtyping import Float32, Int32, Int64

from clustering.jaccard import (
    LARGEST_SCALE,
    NeighbourhoodWeights,
    limited_lengths,
    neighbourhood_weights,
    overlap_distances,
)
from clustering.jaccard_kernels import sum_sizes, sum_weights, transpose
from clustering.neighbours import Neighbours, nearest_neighbours
from clustering.parallel import over_blocks
from pipeline.errors import ConfigError
from pipeline.evaluation.reranking_kernels import gallery_overlaps, scale_weights

SIMILARITIES_PER_BLOCK = 1 << 22  # 16 MB of products of all with all at a time
FARTHEST_OF_COPIES = 1e-6  # a squared distance as small as this is what float32 leaves of zero


def k_reciprocal(
    query: Float32[np.ndarray, "q d"],
    gallery: Float32[np.ndarray, "g d"],
    *,
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
) -> Float32[np.ndarray, "q g"]:
    """Compare queries and gallery images (unit rows) by their shared neighbourhoods.

    The result depends on all queries and the whole gallery, excluded pairs included: pass those of one trial, and rank
    the result with the trial's mask.

    Args:
        query: Unit rows.
        gallery: Unit rows.
        k1: Length of the reciprocal lists, the image itself not counted; at most the number of images.
        k2: Neighbours, the image itself first, over which a neighbourhood is averaged.
        original_weight: From 0 (neighbourhoods alone) to 1 (the order of the cosine).

    Returns:
        Similarities in [-1, 0]: -(1 - original_weight) x Jaccard distance - original_weight x original distance, the
        latter squared Euclidean, divided by the query's largest to any image. Neighbourhoods use the same division.

    Raises:
        ConfigError: k2 is not from 1 to k1, or the weight not from 0 to 1.
        ValueError: A row is not finite or not of unit length.

    Cost: 1.5 (q + g)^2 d multiplications; nothing of size (q + g)^2 is held. 3,803 queries x 3,010 images of 2,048
    dimensions on two cores: 3 to 4 s and 180 MB.

    Source: Zhong et al., CVPR 2017; zhunzhong07/person-re-ranking, python-version/re_ranking_ranklist.py, whose
    division by the largest distance is in no equation of the paper.

    Differs: an image is first in its own list even if it has copies, and ties follow the index, queries first; the
    public code leaves both to an unstable sort. k1 is limited to the number of images before it is halved. Where all
    images are copies of one, distances are 0 and not 0 / 0.
    """
    if not 1 <= k2 <= k1:
        raise ConfigError(f"k1 is {k1} and k2 is {k2}", hint="k2 must be from 1 to k1; customary are k1 20 and k2 6")
    if not 0.0 <= original_weight <= 1.0:
        raise ConfigError(
            f"the original distance has weight {original_weight}", hint="it must be from 0 to 1; customary is 0.3"
        )
    images = np.concatenate([query, gallery])
    neighbours = nearest_neighbours(images, k1 + 1)
    divisors = _largest_distances(images)
    expanded = neighbourhood_weights(images, neighbours, k1=k1, k2=1, k1_counts_self=False)
    weights = _scaled_and_averaged(expanded, divisors, neighbours, limited_lengths(len(images), k1, k2)[1])
    holders = _gallery_holders(weights, len(query))
    similarities: Float32[np.ndarray, "q g"] = query @ gallery.T

    def combine(start: int, stop: int) -> None:
        overlaps = np.zeros((stop - start, len(gallery)), np.int64)
        rows = (weights.starts, weights.columns, weights.weights)
        gallery_overlaps(*rows, *holders, len(query), overlaps, start, stop)
        jaccard = overlap_distances(overlaps, weights.scale)
        original = np.maximum(0.0, 2.0 - 2.0 * similarities[start:stop]) / divisors[start:stop, None]
        similarities[start:stop] = -(1.0 - original_weight) * jaccard - original_weight * original

    over_blocks(combine, len(query))
    return similarities


def _largest_distances(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
    """The largest squared distance of each row to any other; infinite if it is zero."""
    least = np.ones(len(rows), np.float32)
    size = max(1, SIMILARITIES_PER_BLOCK // max(1, len(rows)))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        products = rows[block] @ rows[start:].T
        np.minimum(least[block], products.min(axis=1), out=least[block])
        np.minimum(least[start:], products.min(axis=0), out=least[start:])
    largest: Float32[np.ndarray, " n"] = 2.0 - 2.0 * least
    largest[largest <= FARTHEST_OF_COPIES] = np.inf  # what is divided by it is to be zero, not what rounding left of it
    return largest


def _scaled_and_averaged(
    rows: NeighbourhoodWeights, divisors: Float32[np.ndarray, " n"], neighbours: Neighbours, k2: int
) -> NeighbourhoodWeights:
    """Divide distances by the image's divisor, recompute its weights, then average over k2 neighbours."""
    unit = LARGEST_SCALE // k2
    scaled = np.empty_like(rows.weights)
    over_blocks(partial(scale_weights, rows.starts, rows.weights, divisors, unit, scaled), len(divisors))
    sizes = np.empty(len(divisors), np.int64)
    over_blocks(partial(sum_sizes, neighbours.ranks, k2, rows.starts, rows.columns, sizes), len(sizes))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    columns, weights = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    fill = partial(sum_weights, neighbours.ranks, k2, rows.starts, rows.columns, scaled, starts, columns, weights)
    over_blocks(fill, len(sizes))
    return NeighbourhoodWeights(starts, columns, weights, k2 * unit)


def _gallery_holders(
    weights: NeighbourhoodWeights, num_queries: int
) -> tuple[Int64[np.ndarray, " n_plus_one"], Int32[np.ndarray, " z"], Int32[np.ndarray, " z"]]:
    """For every image, the gallery images with it in their neighbourhood, and their weights."""
    first = weights.starts[num_queries]
    starts = np.maximum(weights.starts - first, 0)  # the rows of queries become empty
    columns, held = weights.columns[first:], weights.weights[first:]
    column_starts = np.zeros(len(starts), np.int64)
    holders, holder_weights = np.empty_like(columns), np.empty_like(held)
    transpose(starts, columns, held, column_starts, holders, holder_weights)
    return column_starts, holders, holder_weights
