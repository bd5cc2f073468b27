"""Nearest neighbours among unit rows: all pairs compared, or an approximate faiss index."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from clustering.neighbours_kernels import choose_among_ties, order_candidates
from clustering.parallel import over_blocks
from clustering.rows import check_unit_rows

TIE_TOLERANCE = 5e-6  # float32 inner products of unit rows, summed in another order, differ by less than 1e-6
SPARE_CANDIDATES = 8  # beyond the list, so that a chance near-tie at its end needs no second search
QUERIES_PER_SEARCH = 16_384  # limits the 64-bit results of the search; four of its own blocks
PRECISION_IMAGES = 100
SIMILARITIES_PER_BLOCK = 1 << 22  # 16 MB of full rows at a time, for the images with long ties
logger = logging.getLogger(__name__)
Found = tuple[Float32[np.ndarray, "b w"], Int64[np.ndarray, "b w"]]
Search = Callable[[Float32[np.ndarray, "b d"], int], Found]
LEAST_IMAGES = 1_000  # below, the exact search takes milliseconds
RECALL_GOAL = 0.98  # from here on, labels differ from those of exact lists in few images
SAMPLE = 500  # images for tuning nprobe or efSearch, and as many others for measuring the recall
EFFORT_STEP = 1.5
SEED = 1
POINTS_PER_LIST = 64  # k-means points for each list of "ivf"
TRAINING_STEPS = 6
LINKS = 32  # of each row in the graph of "hnsw"
BUILDING_EFFORT = 80  # efConstruction
MOST_STEPS = 4_096  # efSearch of "hnsw": if it is not enough, the graph is disconnected and more does not help


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest images of each image, most similar first; column 0 is the image itself.

    `similarities` are inner products, within 1e-6. `recall` is the share of the exact neighbours found, measured on
    sampled images; None for an exact search. `search` names library and index for the record.
    """

    ranks: Int32[np.ndarray, "n k"]
    similarities: Float32[np.ndarray, "n k"]
    recall: float | None = None
    search: str = "faiss-cpu exact"


def nearest_neighbours(
    features: Float32[np.ndarray, "n d"], k: int, *, method: Literal["exact", "ivf", "hnsw"] = "exact"
) -> Neighbours:
    """Find the k (at least 1, clamped to n) most similar images of every image, itself first.

    An image with k or more exact copies is still first in its own list. Ties are ordered by index. Similarities within
    rounding of each other are computed again in float64, so exact lists do not depend on the number of threads.
    "exact" compares every pair; "ivf" and "hnsw" find about 0.98 of the neighbours, see `search_some_pairs`.

    Raises:
        ValueError: k is below 1, or the features are not 2-D float32 with finite rows of unit length.

    Cost: n^2 d multiplications, 13 s at 22,258 x 2048 on two cores; 8 bytes a list entry, 40 MB during the search. A
    tie of more than eight images at the end of a list costs a second search of that image. At 100,000 x 256 random
    features, on two busy cores: "exact" 50 s, "hnsw" 95 s (half of it for the graph), "ivf" 280 s; "hnsw" grows hardly
    faster than n.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    check_unit_rows(features)
    features = np.ascontiguousarray(features)
    k = min(k, len(features))
    match method:
        case "exact":
            return Neighbours(*search_all_pairs(features, k))
        case "ivf" | "hnsw":
            return Neighbours(*search_some_pairs(features, k, method))


def search_all_pairs(
    features: Float32[np.ndarray, "n d"], k: int, *, gpu: int | None = None
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """The k most similar images of every image and their similarities, by faiss, with ties in float64.

    `gpu` is the number of the GPU on which faiss-gpu searches; None searches on the CPU.
    """
    num_images = len(features)
    if gpu is None:
        return _search_blocks(features, range(num_images), range(num_images), k)
    import faiss  # here, because it loads an OpenMP of its own

    ranks, similarities, settled = _empty_lists(num_images, k)
    found_similarities, found = faiss.knn_gpu(
        faiss.StandardGpuResources(), features, features, min(k + SPARE_CANDIDATES, num_images),
        metric=faiss.METRIC_INNER_PRODUCT, device=gpu,
    )  # fmt: skip
    _check_precision(features, found[:PRECISION_IMAGES], found_similarities[:PRECISION_IMAGES])
    put_in_order(features, found, found_similarities, 0, ranks, similarities, settled)
    search_through_all(features, np.flatnonzero(~settled), ranks, similarities)
    return ranks, similarities


def search_between(
    features: Float32[np.ndarray, "n d"], queries: range, targets: range, k: int
) -> tuple[Int32[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """The k most similar of some rows, the targets, to each of the queries, and their similarities.

    Queries are the targets themselves, each itself first in its list, or have no common row with them, as two
    modalities; both are ranges of rows, which are numbered as in `features` (unit rows). `k` is at most the number of
    targets. Ties are as in `nearest_neighbours`.
    """
    if not k or not len(queries):
        return np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    first = int(queries != targets)  # the lists of `_search_blocks` begin with the query
    ranks, similarities = _search_blocks(features, queries, targets, k + first)
    own = slice(queries.start, queries.stop)
    return np.ascontiguousarray(ranks[own, first:]), np.ascontiguousarray(similarities[own, first:])


def _search_blocks(
    features: Float32[np.ndarray, "n d"], queries: range, targets: range, width: int
) -> tuple[Int32[np.ndarray, "n width"], Float32[np.ndarray, "n width"]]:
    """Lists of the queries, each itself first, then the most similar targets; rows of other images are not written."""
    import faiss  # here, as in `search_all_pairs`

    ranks, similarities, settled = _empty_lists(len(features), width)
    rows = features[targets.start : targets.stop]
    candidates = min(width + SPARE_CANDIDATES, len(targets))
    for first in range(queries.start, queries.stop, QUERIES_PER_SEARCH):
        block = features[first : min(first + QUERIES_PER_SEARCH, queries.stop)]
        found_similarities, found = faiss.knn(block, rows, candidates, metric=faiss.METRIC_INNER_PRODUCT)
        put_in_order(features, found + targets.start, found_similarities, first, ranks, similarities, settled)
    if candidates < len(targets):
        unsettled = queries.start + np.flatnonzero(~settled[queries.start : queries.stop])
        search_through_all(features, unsettled, ranks, similarities, targets)
    return ranks, similarities


def _empty_lists(
    num_images: int, width: int
) -> tuple[Int32[np.ndarray, "n width"], Float32[np.ndarray, "n width"], Bool[np.ndarray, " n"]]:
    """Ranks, similarities and settled flags to fill; untouched pages take no memory."""
    return (
        np.empty((num_images, width), np.int32),
        np.empty((num_images, width), np.float32),
        np.empty(num_images, np.bool_),
    )


def _check_precision(
    features: Float32[np.ndarray, "n d"], found: Int64[np.ndarray, "b w"], similarities: Float32[np.ndarray, "b w"]
) -> None:
    """Refuse similarities rounded more coarsely than float32: the order would silently be wrong."""
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
    settled: Bool[np.ndarray, " n"],
) -> None:
    """Write the lists of images first to first + b from search results, ties by float64 and then by index.

    `found` has at least k candidates, or all images, most similar first, with similarities as rounded by the search.
    `ranks` and `similarities` are written; `settled` becomes false if a tie may continue beyond the candidates.
    """
    order = partial(
        order_candidates, features, found, found_similarities, first, TIE_TOLERANCE, ranks, similarities, settled
    )
    over_blocks(order, len(found))


def search_through_all(
    features: Float32[np.ndarray, "n d"],
    images: Int64[np.ndarray, " b"],
    ranks: Int32[np.ndarray, "n k"],
    similarities: Float32[np.ndarray, "n k"],
    targets: range | None = None,
) -> None:
    """Write the lists of `images` from their similarities to every image, however long a tie is.

    `targets` limits the lists to these rows, which hold all of `images` or none; each list begins with its image.

    Cost: Three times a search of the same images; 16 MB.
    """
    targets = range(len(features)) if targets is None else targets
    rows = max(1, SIMILARITIES_PER_BLOCK // max(1, len(targets)))
    for first in range(0, len(images), rows):
        block = images[first : first + rows]
        all_similarities = features[block] @ features[targets.start : targets.stop].T
        wanted = ranks.shape[1] - (int(block[0]) not in targets)
        last = len(targets) - wanted  # the last of those wanted, the image itself counted, from below
        least = np.partition(all_similarities, last, axis=1)[:, last] - np.float32(TIE_TOLERANCE)
        choose = partial(choose_among_ties, features, block, all_similarities, targets.start, least)
        over_blocks(partial(choose, ranks, similarities), len(block))


def search_some_pairs(
    features: Float32[np.ndarray, "n d"], k: int, method: Literal["ivf", "hnsw"]
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"], float, str]:
    """Approximately the k most similar images of every image.

    "ivf" is an inverted file index, "hnsw" a graph walk. nprobe or efSearch is raised by halves until 0.98 of the
    neighbours of 500 sampled images are found. Images with too few candidates are searched exactly, and so are all
    below 1,000 images.

    Returns:
        Lists, itself first, ties by float64 and then by index; their similarities; the recall over 500 other images,
        the image itself excluded; and a description of the search.

    Cost: Index: seconds to minutes on one thread, so that it is deterministic, and a copy of the rows. Search: a share
    of the exact search's time that falls with n.

    Source: Sivic and Zisserman, ICCV 2003; Malkov and Yashunin, TPAMI 2020; both as in faiss.
    """
    num_images = len(features)
    if num_images < LEAST_IMAGES:
        return *search_all_pairs(features, k), 1.0, "faiss-cpu exact, because there are few images"
    sampled = np.random.default_rng(SEED).permutation(num_images)
    tuning, measuring = np.sort(sampled[:SAMPLE]), np.sort(sampled[SAMPLE : 2 * SAMPLE])
    width = min(k + SPARE_CANDIDATES, num_images)
    search, efforts, unit = _ivf(features, width) if method == "ivf" else _hnsw(features, width)
    expected = _exact_lists(features, tuning, k)
    for effort in efforts:
        if _found_share(search(features[tuning], effort)[1], expected) >= RECALL_GOAL:
            break
    found_similarities, found = search(features, effort)
    ranks, similarities = _complete_lists(features, found, found_similarities, k)
    recall = _found_share(ranks[measuring].astype(np.int64), _exact_lists(features, measuring, k))
    searched = f"faiss-cpu {method}, {effort} {unit}"
    level = logging.INFO if recall >= RECALL_GOAL - 0.01 else logging.WARNING
    logger.log(level, "%s: recall %.3f on %d sampled images", searched, recall, len(measuring))
    return ranks, similarities, recall, searched


def _ivf(features: Float32[np.ndarray, "n d"], width: int) -> tuple[Search, list[int], str]:
    """The search, its values of nprobe in ascending order, and their unit."""
    import faiss  # here, as in `search_all_pairs`

    lists = 2 * int(len(features) ** 0.5)
    directions = faiss.IndexFlatIP(features.shape[1])
    index = faiss.IndexIVFFlat(directions, features.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = SEED, TRAINING_STEPS
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_PER_LIST
    with one_thread(faiss):
        index.train(features)
    index.add(features)

    def search(queries: Float32[np.ndarray, "b d"], effort: int) -> Found:
        index.nprobe = effort
        similarities, images = index.search(queries, width)
        return similarities, images

    return search, _efforts(lists // 16, lists), f"of {lists} lists"


def _hnsw(features: Float32[np.ndarray, "n d"], width: int) -> tuple[Search, list[int], str]:
    """The search, its values of efSearch in ascending order, and their unit."""
    import faiss

    index = faiss.IndexHNSWFlat(features.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILDING_EFFORT
    with one_thread(faiss):
        index.add(features)

    def search(queries: Float32[np.ndarray, "b d"], effort: int) -> Found:
        index.hnsw.efSearch = effort
        similarities, images = index.search(queries, width)
        return similarities, images

    return search, _efforts(width, max(width, min(MOST_STEPS, len(features)))), "rows kept on the way"


def _efforts(least: int, most: int) -> list[int]:
    """From `least` to `most`, each half as much again."""
    efforts = [max(1, least)]
    while efforts[-1] < most:
        efforts.append(min(most, int(EFFORT_STEP * efforts[-1]) + 1))
    return efforts


@contextmanager
def one_thread(faiss: Any) -> Iterator[None]:
    """Let faiss use one thread: with several, an index depends on timing."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _exact_lists(
    features: Float32[np.ndarray, "n d"], images: Int64[np.ndarray, " b"], k: int
) -> Int32[np.ndarray, "b k"]:
    ranks = np.empty((len(features), k), np.int32)  # untouched pages take no memory
    search_through_all(features, images, ranks, np.empty(ranks.shape, np.float32))
    lists: Int32[np.ndarray, "b k"] = ranks[images]
    return lists


def _found_share(found: Int64[np.ndarray, "b w"], expected: Int32[np.ndarray, "b k"]) -> float:
    """Share of the expected images, without each list's first, that are among those found; 1 if none is expected."""
    wanted = expected[:, 1:, None]
    return float((wanted == found[:, None, :]).any(axis=2).mean()) if wanted.size else 1.0


def _complete_lists(
    features: Float32[np.ndarray, "n d"],
    found: Int64[np.ndarray, "n w"],
    found_similarities: Float32[np.ndarray, "n w"],
    k: int,
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Order the candidates, and search exactly for images with too few: faiss fills their rows with -1."""
    ranks = np.empty((len(features), k), np.int32)
    similarities = np.empty((len(features), k), np.float32)
    short = np.flatnonzero(found.min(axis=1) < 0)
    found[short] = np.arange(found.shape[1])  # any images: these lists are written again
    settled = np.empty(len(features), np.bool_)  # not read: a tie may continue among rows that the index did not visit
    put_in_order(features, found, found_similarities, 0, ranks, similarities, settled)
    search_through_all(features, short, ranks, similarities)
    return ranks, similarities
