"""The search that compares every pair of rows."""

from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from clustering.neighbours_kernels import choose_among_ties, order_candidates
from clustering.parallel import over_blocks

TIE_TOLERANCE = 5e-6  # float32 inner products of unit rows, summed in another order, differ by less than 1e-6
SPARE_CANDIDATES = 8  # beyond the list, so that a chance near-tie at its end is settled without another search
QUERIES_PER_SEARCH = 16_384  # bounds the 64-bit results of the search; four of its own blocks
PRECISION_IMAGES = 100
SIMILARITIES_PER_BLOCK = 1 << 22  # 16 MB of full rows at a time, for the images whose ties go on


def search_all_pairs(
    features: Float32[np.ndarray, "n d"], k: int, *, gpu: int | None = None
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """List the k most similar images of every image and their similarities.

    Searches in blocks of queries, puts each block's candidates in order, and searches again where ties go on.

    Args:
        features: Unit rows, contiguous.
        k: From 1 to n, or 0 where there are no images.
        gpu: Number of the GPU that proposes candidates, by a faiss that is built for it; None searches on the CPU.

    Raises:
        ValueError: The proposed similarities are off by more than rounding.
    """
    import faiss  # here, because it brings an OpenMP of its own, which whoever only reads labels should not load

    num_images = len(features)
    ranks = np.empty((num_images, k), np.int32)
    similarities = np.empty((num_images, k), np.float32)
    settled = np.empty(num_images, np.bool_)
    width = min(k + SPARE_CANDIDATES, num_images)
    inner = faiss.METRIC_INNER_PRODUCT
    if gpu is None:
        for first in range(0, num_images, QUERIES_PER_SEARCH):
            queries = features[first : first + QUERIES_PER_SEARCH]
            found_similarities, found = faiss.knn(queries, features, width, metric=inner)
            put_in_order(features, found, found_similarities, first, ranks, similarities, settled)
    else:
        resources = faiss.StandardGpuResources()
        found_similarities, found = faiss.knn_gpu(resources, features, features, width, metric=inner, device=gpu)
        _check_precision(features, found[:PRECISION_IMAGES], found_similarities[:PRECISION_IMAGES])
        put_in_order(features, found, found_similarities, 0, ranks, similarities, settled)
    search_through_all(features, np.flatnonzero(~settled), ranks, similarities)
    return ranks, similarities


def _check_precision(
    features: Float32[np.ndarray, "n d"], found: Int64[np.ndarray, "b w"], similarities: Float32[np.ndarray, "b w"]
) -> None:
    """Refuse similarities that were rounded more coarsely than float32: the order would be wrong, unseen."""
    rows = features[: len(found)].astype(np.float64)
    exact = np.einsum("bd,bwd->bw", rows, features[found])
    if np.abs(exact - similarities).max(initial=0.0) > TIE_TOLERANCE / 2:
        raise ValueError("similarities are less precise than float32")


def put_in_order(
    features: Float32[np.ndarray, "n d"],
    found: Int64[np.ndarray, "b w"],
    found_similarities: Float32[np.ndarray, "b w"],
    first: int,
    ranks: Int32[np.ndarray, "n k"],
    similarities: Float32[np.ndarray, "n k"],
    settled: Bool[np.ndarray, "n"],
) -> None:
    """Fill the lists of images first to first + b from what a search found, ties by float64 and then by index.

    Args:
        features: Unit rows, contiguous.
        found: Candidates, most similar first; at least k of them, or all images.
        found_similarities: Their similarities, rounded as the search rounds.
        first: The image of the first row of `found`.
        ranks: The lists; written to.
        similarities: Their similarities; written to.
        settled: Becomes false where a tie may go on beyond the candidates.
    """
    order = partial(
        order_candidates, features, found, found_similarities, first, TIE_TOLERANCE, ranks, similarities, settled
    )
    over_blocks(order, len(found))


def search_through_all(
    features: Float32[np.ndarray, "n d"],
    images: Int64[np.ndarray, "b"],
    ranks: Int32[np.ndarray, "n k"],
    similarities: Float32[np.ndarray, "n k"],
) -> None:
    """Fill the lists of some images from their similarities to every image, however long a tie is.

    Args:
        features: Unit rows, contiguous.
        images: Which images; only their rows are written.
        ranks: The lists; written to.
        similarities: Their similarities; written to.

    Cost: Three times a search of the same images; 16 MB.
    """
    rows = max(1, SIMILARITIES_PER_BLOCK // max(1, len(features)))
    for first in range(0, len(images), rows):
        block = images[first : first + rows]
        all_similarities = features[block] @ features.T
        last = len(features) - ranks.shape[1]  # the k-th most similar, the image itself counted, from below
        least = np.partition(all_similarities, last, axis=1)[:, last] - np.float32(TIE_TOLERANCE)
        over_blocks(
            partial(choose_among_ties, features, block, all_similarities, least, ranks, similarities), len(block)
        )
