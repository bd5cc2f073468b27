"""Exact nearest neighbours among unit rows."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32

from clustering.neighbours_kernels import choose_among_ties, order_candidates
from clustering.parallel import over_blocks
from clustering.rows import check_unit_rows

TIE_TOLERANCE = 5e-6  # float32 inner products of unit rows, summed in another order, differ by less than 1e-6
SPARE_CANDIDATES = 8  # beyond the list, so that a chance near-tie at its end is settled without another search
QUERIES_PER_SEARCH = 16_384  # bounds the 64-bit results of the search; four of its own blocks
SIMILARITIES_PER_BLOCK = 1 << 22  # 16 MB of full rows at a time, for the images whose ties go on


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest images of each image, best first.

    Args:
        ranks: Image indices; column 0 is the image itself.
        similarities: Their inner products with the image, in [-1, 1], within 1e-6.
    """

    ranks: Int32[np.ndarray, "n k"]
    similarities: Float32[np.ndarray, "n k"]


def nearest_neighbours(
    features: Float32[np.ndarray, "n d"], k: int, *, method: Literal["exact"] = "exact"
) -> Neighbours:
    """Find the k most similar images of every image, itself first.

    An image that has k or more exact copies is still first in its own list. Equally similar images come by smaller
    index. Similarities within rounding of each other are computed again in float64, so the lists do not depend on the
    number of threads.

    Args:
        features: Unit rows.
        k: Length of the lists, at least 1, the image itself counted. With fewer than k images all of them are listed.
        method: How to search; every pair is compared.

    Returns:
        Lists of min(k, n) images.

    Raises:
        ValueError: k is below 1, or a row is not finite or not of unit length.

    Cost: n^2 d multiplications, 13 s at 22,258 x 2048 on two cores; 8 bytes a list entry, 40 MB during the search.
    Images that have more than eight others at the same similarity at the end of their list cost a second search.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    check_unit_rows(features)
    features = np.ascontiguousarray(features)
    match method:
        case "exact":
            return _search_all_pairs(features, min(k, len(features)))


def _search_all_pairs(features: Float32[np.ndarray, "n d"], k: int) -> Neighbours:
    """Search in blocks of queries, then put each block's candidates in order."""
    import faiss  # here, because it brings an OpenMP of its own, which whoever only reads labels should not load

    num_images = len(features)
    ranks = np.empty((num_images, k), np.int32)
    similarities = np.empty((num_images, k), np.float32)
    settled = np.empty(num_images, np.bool_)
    width = min(k + SPARE_CANDIDATES, num_images)
    for first in range(0, num_images, QUERIES_PER_SEARCH):
        queries = features[first : first + QUERIES_PER_SEARCH]
        found_similarities, found = faiss.knn(queries, features, width, metric=faiss.METRIC_INNER_PRODUCT)
        order = partial(
            order_candidates, features, found, found_similarities, first, TIE_TOLERANCE, ranks, similarities, settled
        )
        over_blocks(order, len(queries))
    _settle_long_ties(features, settled, ranks, similarities)
    return Neighbours(ranks, similarities)


def _settle_long_ties(
    features: Float32[np.ndarray, "n d"],
    settled: Bool[np.ndarray, "n"],
    ranks: Int32[np.ndarray, "n k"],
    similarities: Float32[np.ndarray, "n k"],
) -> None:
    """Search again, through every image, for those whose list ends in a tie longer than the spare candidates."""
    unsettled = np.flatnonzero(~settled)
    rows = max(1, SIMILARITIES_PER_BLOCK // max(1, len(features)))
    for first in range(0, len(unsettled), rows):
        images = unsettled[first : first + rows]
        all_similarities = features[images] @ features.T
        last = len(features) - ranks.shape[1]  # the k-th most similar, the image itself counted, from below
        least = np.partition(all_similarities, last, axis=1)[:, last] - np.float32(TIE_TOLERANCE)
        over_blocks(
            partial(choose_among_ties, features, images, all_similarities, least, ranks, similarities), len(images)
        )
