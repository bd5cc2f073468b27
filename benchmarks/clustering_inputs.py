"""Features and lists of neighbours of the clustering benchmark, kept in a scratch folder once they are made."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchmarks.clustering_jobs import K1, WARM_UP, Job, Search
from benchmarks.clustering_probes import ENOUGH_SECONDS, timed
from clustering.neighbours import Neighbours, nearest_neighbours
from tests.reference.feature_sets import identity_features

SAMPLE = 500  # images whose exact neighbours are looked up, to count how many of them are in their lists
QUERIES_AT_ONCE = 20_000
IMAGES_AT_ONCE = 100_000
BUCKETS, PROBES = 1024, 4
IMAGES_A_BUCKET = 400


def draw_features(job: Job, scratch: Path) -> None:
    """Draw the features of a job; of a mapped one in blocks, each of people of its own, so that they fit the memory."""
    unfinished = job.features_file(scratch).with_suffix(".tmp.npy")
    at_once = IMAGES_AT_ONCE if job.kind == "mapped" else job.images
    rows = np.lib.format.open_memmap(unfinished, "w+", np.float32, (job.images, job.width))
    for number, first in enumerate(range(0, job.images, at_once)):
        count = min(at_once, job.images - first)
        people = max(1, job.people * count // job.images)
        rows[first : first + count] = identity_features(count, people, job.width, seed=1 + number)
    rows.flush()
    unfinished.replace(job.features_file(scratch))


def find_lists(job: Job, scratch: Path, search: Search, repeats: int) -> None:
    """Find the neighbours of a job, and how long the library alone takes to compare every pair."""
    features = np.load(job.features_file(scratch), mmap_mode="r")
    nearest_neighbours(features[:WARM_UP], K1)
    found: Neighbours | None = None
    taken: list[float] = []
    bare: list[float] = []
    began = perf_counter()
    while len(taken) < repeats and perf_counter() - began < ENOUGH_SECONDS:
        found, seconds = timed(lambda: search_lists(features, search, in_blocks=job.kind == "mapped"))
        taken.append(seconds)
        if search == "exact":
            bare.append(timed(lambda: search_pairs(features))[1])
    assert found is not None
    unfinished = job.lists_file(scratch, search).with_suffix(".tmp.npz")
    np.savez(
        unfinished,
        ranks=found.ranks,
        similarities=found.similarities,
        seconds=min(taken),
        search_seconds=min(bare, default=np.nan),
        recall=share_found(features, found),
    )
    unfinished.replace(job.lists_file(scratch, search))


def search_lists(features: Float32[np.ndarray, "n d"], search: Search, *, in_blocks: bool) -> Neighbours:
    """Lists of neighbours."""
    if search != "buckets":
        return nearest_neighbours(features, K1, method=search)
    return block_lists(features) if in_blocks else bucket_lists(features, BUCKETS)


def block_lists(features: Float32[np.ndarray, "n d"]) -> Neighbours:
    """Lists within each of the blocks that `draw_features` draws people of their own for."""
    ranks, similarities = np.empty((len(features), K1), np.int32), np.empty((len(features), K1), np.float32)
    for first in range(0, len(features), IMAGES_AT_ONCE):
        block = slice(first, first + IMAGES_AT_ONCE)
        rows = np.ascontiguousarray(features[block])
        found = bucket_lists(rows, buckets=1 + len(rows) // IMAGES_A_BUCKET)
        ranks[block], similarities[block] = found.ranks + first, found.similarities
    return Neighbours(ranks, similarities)


def bucket_lists(features: Float32[np.ndarray, "n d"], buckets: int) -> Neighbours:
    """Some near images of each image: the nearest in the few buckets that lie next to it.

    Minutes for a million images, where the exact search takes hours. These lists only serve to measure what comes after
    the search; `share_found` says how good they are.
    """
    import faiss

    index: Any = faiss.index_factory(features.shape[1], f"IVF{buckets},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 5
    index.train(features[:: max(1, len(features) // (64 * buckets))])
    index.add(features)
    index.nprobe = PROBES
    ranks = np.empty((len(features), K1), np.int32)
    similarities = np.empty((len(features), K1), np.float32)
    for first in range(0, len(features), QUERIES_AT_ONCE):
        images = np.arange(first, min(first + QUERIES_AT_ONCE, len(features)))
        scores, found = index.search(features[images], K1)
        assert found.min() >= 0, "buckets with fewer images than a list"
        order = np.argsort(found != images[:, None], axis=1, kind="stable")  # itself first
        ranks[images] = np.take_along_axis(found, order, axis=1)
        similarities[images] = np.take_along_axis(scores, order, axis=1)
    return Neighbours(ranks, similarities)


def search_pairs(features: Float32[np.ndarray, "n d"]) -> None:
    """The nearest neighbours as the library gives them: the least that any exact labelling takes."""
    import faiss

    faiss.knn(features, features, K1, metric=faiss.METRIC_INNER_PRODUCT)


def share_found(features: Float32[np.ndarray, "n d"], neighbours: Neighbours) -> float:
    """Of the exact neighbours of some images, themselves left out, how many are in their lists."""
    import faiss

    images = np.linspace(0, len(features) - 1, min(len(features), SAMPLE)).astype(np.int64)
    exact = faiss.knn(features[images], features, K1, metric=faiss.METRIC_INNER_PRODUCT)[1]
    shares = [
        np.isin(near[near != image], neighbours.ranks[image]).mean() for image, near in zip(images, exact, strict=True)
    ]
    return float(np.mean(shares))


def load(job: Job, scratch: Path, search: str) -> tuple[np.ndarray, Neighbours, dict[str, Any]]:
    """Features and lists of a job, and what finding the lists took."""
    with np.load(job.lists_file(scratch, search)) as lists:
        neighbours = Neighbours(lists["ranks"], lists["similarities"])
        taken = {"neighbours_seconds": float(lists["seconds"]), "recall": float(lists["recall"])}
        if np.isfinite(lists["search_seconds"]):
            taken["search_seconds"] = float(lists["search_seconds"])
    mapped = "r" if job.kind == "mapped" else None
    return np.load(job.features_file(scratch), mmap_mode=mapped), neighbours, taken
