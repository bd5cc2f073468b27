"""Searches that compare each row with some of the others, tuned until they find nearly all of its neighbours."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32, Int64

from clustering.exact_search import SPARE_CANDIDATES, put_in_order, search_all_pairs, search_through_all

logger = logging.getLogger(__name__)

Found = tuple[Float32[np.ndarray, "b w"], Int64[np.ndarray, "b w"]]
Search = Callable[[Float32[np.ndarray, "b d"], int], Found]

LEAST_IMAGES = 1_000  # below, the exact search takes milliseconds
RECALL_GOAL = 0.98  # from there on, labels differ from those of exact lists in few images
SAMPLE = 500  # images on which the effort is set, and as many others on which the recall is measured
EFFORT_STEP = 1.5
SEED = 1
POINTS_PER_LIST = 64  # what k-means sees for each list of "ivf"
TRAINING_STEPS = 6
LINKS = 32  # of each row in the graph of "hnsw"
BUILDING_EFFORT = 80
MOST_STEPS = 4_096  # of a walk of "hnsw": where these are not enough, the graph has come apart and more do not help


def search_some_pairs(
    features: Float32[np.ndarray, "n d"], k: int, method: Literal["ivf", "hnsw"]
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"], float, str]:
    """List nearly the k most similar images of every image.

    "ivf" sorts the rows into lists by k-means and looks through those nearest to a row; "hnsw" walks a graph of near
    rows. The effort is raised by halves until 0.98 of the neighbours of 500 drawn images are found. Images for which a
    search returns too few candidates are searched exactly; where there are fewer than 1,000 images, all are.

    Args:
        features: Unit rows, contiguous.
        k: From 1 to n, or 0 where there are no images.
        method: Which of the two.

    Returns:
        Lists, itself first, ties by float64 and then by index; their similarities; the recall, the share of the exact
        lists' other images that is found, over 500 images on which the effort was not set; and what searched.

    Cost: Index: seconds to minutes on one thread, so that it is the same each time, and a copy of the rows. Search: a
    share of the exact one's time that falls with n.

    Source: Sivic and Zisserman, ICCV 2003; Malkov and Yashunin, TPAMI 2020; both as in faiss.
    """
    num_images = len(features)
    if num_images < LEAST_IMAGES:
        return *search_all_pairs(features, k), 1.0, "faiss-cpu exact, because there are few images"
    drawn = np.random.default_rng(SEED).permutation(num_images)
    tuning, measuring = np.sort(drawn[:SAMPLE]), np.sort(drawn[SAMPLE : 2 * SAMPLE])
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
    logger.log(level, "%s: recall %.3f on %d drawn images", searched, recall, len(measuring))
    return ranks, similarities, recall, searched


def _ivf(features: Float32[np.ndarray, "n d"], width: int) -> tuple[Search, list[int], str]:
    """An index of lists; how many of them to look through, least first; and what these are."""
    import faiss  # here, for the same reason as in `exact_search`

    lists = 2 * int(len(features) ** 0.5)
    directions = faiss.IndexFlatIP(features.shape[1])
    index = faiss.IndexIVFFlat(directions, features.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = SEED, TRAINING_STEPS
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_PER_LIST
    with _one_thread(faiss):
        index.train(features)
    index.add(features)

    def search(queries: Float32[np.ndarray, "b d"], effort: int) -> Found:
        index.nprobe = effort
        similarities, images = index.search(queries, width)
        return similarities, images

    return search, _efforts(lists // 16, lists), f"of {lists} lists"


def _hnsw(features: Float32[np.ndarray, "n d"], width: int) -> tuple[Search, list[int], str]:
    """An index of links; how far to walk, least first; and what these are."""
    import faiss

    index = faiss.IndexHNSWFlat(features.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILDING_EFFORT
    with _one_thread(faiss):
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
def _one_thread(faiss: Any) -> Iterator[None]:
    """Let faiss use one thread: with several, an index depends on which was faster."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _exact_lists(
    features: Float32[np.ndarray, "n d"], images: Int64[np.ndarray, "b"], k: int
) -> Int32[np.ndarray, "b k"]:
    """Lists of some images, from their similarities to all."""
    ranks = np.empty((len(features), k), np.int32)  # untouched pages take no memory
    search_through_all(features, images, ranks, np.empty(ranks.shape, np.float32))
    lists: Int32[np.ndarray, "b k"] = ranks[images]
    return lists


def _found_share(found: Int64[np.ndarray, "b w"], expected: Int32[np.ndarray, "b k"]) -> float:
    """Share of the expected images, each list's first left out, that are among those found; 1 if none is expected."""
    wanted = expected[:, 1:, None]
    return float((wanted == found[:, None, :]).any(axis=2).mean()) if wanted.size else 1.0


def _complete_lists(
    features: Float32[np.ndarray, "n d"],
    found: Int64[np.ndarray, "n w"],
    found_similarities: Float32[np.ndarray, "n w"],
    k: int,
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Put candidates in order, and search exactly for the images that have too few: faiss fills their rows with -1."""
    ranks = np.empty((len(features), k), np.int32)
    similarities = np.empty((len(features), k), np.float32)
    short = np.flatnonzero(found.min(axis=1) < 0)
    found[short] = np.arange(found.shape[1])  # any images: these lists are written again
    settled = np.empty(len(features), np.bool_)  # not read: a tie that goes on may go on among rows never looked at
    put_in_order(features, found, found_similarities, 0, ranks, similarities, settled)
    search_through_all(features, short, ranks, similarities)
    return ranks, similarities
