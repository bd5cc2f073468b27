"""What `benchmarks/clustering_engine.py` measures, each job in processes of its own.

Seconds are those of the fastest of several repeats. Memory is what a call adds, at its peak, to a process that has
loaded the libraries, the compiled loops and the features.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Int64

from benchmarks.clustering_inputs import draw_features, find_lists, load, search_pairs
from benchmarks.clustering_jobs import EPS, K1, K2, MIN_SAMPLES, WARM_UP, Job
from benchmarks.clustering_machine import describe_machine
from benchmarks.clustering_probes import ENOUGH_SECONDS, device_peak, timed, with_owned_peak, with_peak
from benchmarks.dense_labelling import dense_labels
from clustering.dbscan import Clustering, dbscan
from clustering.jaccard import CURVE_EPS, neighbourhood_weights, radius_graph
from clustering.labelling import Labelling, label_images
from clustering.neighbours import Neighbours, nearest_neighbours

T = TypeVar("T")


def measure(job: Job, scratch: Path, repeats: int, *, again: bool = False) -> dict[str, Any]:
    """Prepare what the job needs, run it, and say what it found; `again` searches for neighbours anew."""
    scratch.mkdir(parents=True, exist_ok=True)
    if not job.features_file(scratch).exists():
        alone(draw_features, job, scratch)
    for search in job.searches:
        if again or not job.lists_file(scratch, search).exists():
            alone(find_lists, job, scratch, search, repeats)
    match job.kind:
        case "whole":
            return alone(measure_whole, job, scratch, repeats)
        case "parts":
            return alone(measure_parts, job, scratch, repeats)
        case "dense":
            return alone(measure_dense, job, scratch, repeats)
        case "approximate":
            return alone(measure_approximate, job, scratch)
        case "mapped" if job.search == "buckets":
            return alone(measure_mapped_parts, job, scratch)
        case "mapped":
            return alone(measure_mapped, job, scratch)


def alone(task: Callable[..., T], *arguments: Any) -> T:
    """Call in a fresh process, so that nothing that ran before counts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def after_neighbours(
    features: Float32[np.ndarray, "n d"], neighbours: Neighbours
) -> tuple[Clustering, dict[str, float]]:
    """Everything after the search, as `label_images` does it, and the seconds of each part."""
    began = perf_counter()
    weights = neighbourhood_weights(features, neighbours, k1=K1, k2=K2)
    weighed = perf_counter()
    graph = radius_graph(weights, max(EPS, *CURVE_EPS))
    joined = perf_counter()
    labels = dbscan(graph, EPS, MIN_SAMPLES)
    for eps in CURVE_EPS:
        dbscan(graph, eps, MIN_SAMPLES)
    done = perf_counter()
    return labels, {"weights": weighed - began, "graph": joined - weighed, "dbscan": done - joined}


def label_whole(features: Float32[np.ndarray, "n d"], device: str) -> Labelling:
    """Features to labels."""
    return label_images(features, k1=K1, k2=K2, eps=EPS, min_samples=MIN_SAMPLES, device=device)


def measure_whole(job: Job, scratch: Path, repeats: int) -> dict[str, Any]:
    """The whole labelling and the bare search in turns, so that a change of the machine's pace meets both."""
    return whole_figures(np.load(job.features_file(scratch)), label_whole, job.device, repeats)


def whole_figures(
    features: Float32[np.ndarray, "n d"],
    label: Callable[[Float32[np.ndarray, "n d"], str], Labelling],
    device: str,
    repeats: int,
) -> dict[str, Any]:
    """Seconds, memory and clusters of a way from features to labels; the bare search beside it on a CPU."""
    label(features[:WARM_UP], device)
    found: list[Labelling] = []
    whole: list[float] = []
    search: list[float] = []
    peak = 0
    began = perf_counter()
    while len(whole) < repeats and perf_counter() - began < ENOUGH_SECONDS:
        (labelling, seconds), added = with_peak(lambda: timed(lambda: label(features, device)))
        found.append(labelling)
        whole.append(seconds)
        peak = max(peak, added)
        if device == "cpu":
            search.append(timed(lambda: search_pairs(features))[1])
    return {
        "search_seconds": min(search or [one.seconds["neighbours"] for one in found]),
        "whole_seconds": min(whole),
        "after_seconds": min(one.seconds["graph"] + one.seconds["dbscan"] for one in found),
        "peak_bytes": peak,
        "device_peak_bytes": device_peak(device),
        "search": found[0].search,
        **counts(found[0].clustering),
        "machine": describe_machine(device),
    }


def measure_parts(job: Job, scratch: Path, repeats: int) -> dict[str, Any]:
    """Everything after the neighbours, whose lists are given."""
    features, neighbours, taken = load(job, scratch, job.search)
    labels, parts, peak = fastest_after(features, neighbours, repeats)
    return {
        **taken,
        "after_seconds": sum(parts.values()),
        "parts_seconds": parts,
        "peak_bytes": peak,
        **counts(labels),
        "machine": describe_machine(),
    }


def measure_dense(job: Job, scratch: Path, repeats: int) -> dict[str, Any]:
    """Everything after the neighbours, both ways, on the same lists; the labels must be the same."""
    features, neighbours, _ = load(job, scratch, job.search)
    labels, parts, peak = fastest_after(features, neighbours, repeats)
    dense_seconds: list[float] = []
    dense_peak = 0
    began = perf_counter()
    while len(dense_seconds) < repeats and perf_counter() - began < ENOUGH_SECONDS:
        (dense, seconds), added = with_peak(lambda: timed(lambda: dense_from_lists(features, neighbours)))
        assert np.array_equal(dense, labels.labels), f"{np.count_nonzero(dense != labels.labels)} labels differ"
        dense_seconds.append(seconds)
        dense_peak = max(dense_peak, added)
    return {
        "after_seconds": sum(parts.values()),
        "dense_seconds": min(dense_seconds),
        "peak_bytes": peak,
        "dense_peak_bytes": dense_peak,
        **counts(labels),
        "machine": describe_machine(),
    }


def dense_from_lists(features: Float32[np.ndarray, "n d"], neighbours: Neighbours) -> Int64[np.ndarray, " n"]:
    """Labels by full matrices."""
    return dense_labels(features, neighbours.ranks, k1=K1, k2=K2, eps=EPS, min_samples=MIN_SAMPLES)


def fastest_after(
    features: Float32[np.ndarray, "n d"], neighbours: Neighbours, repeats: int
) -> tuple[Clustering, dict[str, float], int]:
    """Labels, the seconds of the fastest of some repeats, and the most memory that one of them took."""
    after_neighbours(features[:WARM_UP], nearest_neighbours(features[:WARM_UP], K1))
    runs: list[tuple[Clustering, dict[str, float]]] = []
    peak = 0
    began = perf_counter()
    while len(runs) < repeats and perf_counter() - began < ENOUGH_SECONDS:
        run, added = with_peak(lambda: after_neighbours(features, neighbours))
        runs.append(run)
        peak = max(peak, added)
    labels, parts = min(runs, key=lambda run: sum(run[1].values()))
    return labels, parts, peak


def measure_mapped(job: Job, scratch: Path) -> dict[str, Any]:
    """`vireid label` on a file once; memory is what the process owns, without pages of the file, and with them."""
    from pipeline.inference.label_features import label_file  # here, because `gpu_check` needs less of the package

    (report, seconds), owned = with_owned_peak(
        lambda: timed(
            lambda: label_file(
                job.features_file(scratch), None, k1=K1, k2=K2, eps=EPS, min_samples=MIN_SAMPLES, method="dbscan",
                neighbour_method="exact", device=job.device,
            )
        )
    )  # fmt: skip
    return {
        "whole_seconds": seconds,
        "parts_seconds": report.labelling.seconds,
        "owned_peak_bytes": owned,
        "resident_peak_bytes": report.peak_bytes,
        "features_bytes": job.features_file(scratch).stat().st_size,
        "device_peak_bytes": device_peak(job.device),
        **counts(report.labelling.clustering),
        "machine": describe_machine(job.device),
    }


def measure_mapped_parts(job: Job, scratch: Path) -> dict[str, Any]:
    """Everything after the neighbours, once, on mapped features; memory as in `measure_mapped`, lists included."""
    features, neighbours, taken = load(job, scratch, job.search)
    (labels, parts), owned = with_owned_peak(lambda: after_neighbours(features, neighbours))
    return {
        **taken,
        "after_seconds": sum(parts.values()),
        "parts_seconds": parts,
        "owned_peak_bytes": owned,
        "features_bytes": job.features_file(scratch).stat().st_size,
        **counts(labels),
        "machine": describe_machine(),
    }


def measure_approximate(job: Job, scratch: Path) -> dict[str, Any]:
    """What lists that miss some neighbours do to the labels."""
    from sklearn.metrics import adjusted_rand_score

    features, exact, exact_taken = load(job, scratch, "exact")
    _, found, taken = load(job, scratch, job.search)
    expected, labels = (after_neighbours(features, neighbours)[0] for neighbours in (exact, found))
    return {
        **taken,
        "exact_seconds": exact_taken["neighbours_seconds"],
        "agreement": float(adjusted_rand_score(outliers_apart(expected), outliers_apart(labels))),
        "exact_clusters": expected.num_clusters,
        "exact_outlier_share": expected.outlier_share,
        **counts(labels),
        "machine": describe_machine(),
    }


def outliers_apart(labels: Clustering) -> Int64[np.ndarray, " n"]:
    """Cluster numbers in which every outlier is a cluster of its own."""
    outliers = labels.labels < 0
    apart = labels.labels.copy()
    apart[outliers] = labels.num_clusters + np.arange(np.count_nonzero(outliers))
    return apart


def counts(labels: Clustering) -> dict[str, Any]:
    """What came out."""
    return {"clusters": labels.num_clusters, "outlier_share": labels.outlier_share}
