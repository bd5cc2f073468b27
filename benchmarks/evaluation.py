"""How fast is ranking? Ten SYSU-MM01 trials of true size against the per-query loop of published code, and re-ranking.

The features are synthetic; queries, cameras, people and gallery sizes are those of the test split. Prints seconds (the
best of some repetitions, on both sides), ratios within this one run, the largest difference of any metric and the peak
memory, and writes `evaluation.json`.

    OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2 python benchmarks/evaluation.py
"""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from jaxtyping import Bool, Float32, Float64, Int64

from benchmarks.evaluation_inputs import NUM_PEOPLE, Images, draw_test_split
from clustering.parallel import num_threads
from pipeline.evaluation.ranking import CURVE_LENGTH, TrialMetrics, rank_queries, summarise, unit_rows
from pipeline.evaluation.reranking import k_reciprocal

T = TypeVar("T")

PEAK_LIMIT = 1.5e9


@dataclass(frozen=True, slots=True)
class Seconds:
    """What ten trials took, ranking alone and with normalising and multiplying."""

    loop: float
    loop_unstable: float
    ranking: float
    normalising: float
    multiplying: float

    @property
    def ratios(self) -> dict[str, float]:
        """The loop's seconds over ours; end to end both sides share rows and products."""
        shared = self.normalising + self.multiplying
        return {
            "ranking": self.loop / self.ranking,
            "ranking, against an unstable sort": self.loop_unstable / self.ranking,
            "end to end": (self.loop + shared) / (self.ranking + shared),
        }


def main(
    trials: Annotated[int, typer.Option(help="Galleries drawn.")] = 10,
    seed: Annotated[int, typer.Option(help="Of people, features and galleries.")] = 1,
    repeats: Annotated[int, typer.Option(help="Measurements of everything; the best one counts.")] = 3,
    out: Annotated[Path, typer.Option(help="The folder for evaluation.json.")] = Path("benchmarks/results"),
) -> None:
    """Measure and print."""
    generator = np.random.default_rng(seed)
    visible, infrared = draw_test_split(generator)
    excluded_from = infrared.cameras == 3  # camera 2 is the same room with the light on
    warm_up(infrared, visible)
    rows, normalising = timed(repeats, lambda: (unit_rows(infrared.features, "q"), unit_rows(visible.features, "g")))
    record: dict[str, Any] = {"machine": machine(), "trials": trials, "seed": seed, "repeats": repeats, "searches": {}}
    for shots in (1, 10):
        galleries = [draw_gallery(generator, visible, shots) for _ in range(trials)]
        shown = np.unique(np.concatenate(galleries))
        similarity, multiplying = timed(repeats, lambda: rows[0] @ rows[1][shown].T)  # noqa: B023  called at once
        jobs = [
            (
                infrared.people,
                visible.people[gallery],
                excluded_from[:, None] & (visible.cameras[gallery] == 2),
                np.searchsorted(shown, gallery),
            )
            for gallery in galleries
        ]
        ours, ranking = timed(repeats, lambda: [rank_trial(similarity, *job) for job in jobs])  # noqa: B023
        loops, loop = timed(repeats, lambda: [loop_trial(similarity, *job, "stable") for job in jobs])  # noqa: B023
        _, unstable = timed(repeats, lambda: [loop_trial(similarity, *job, None) for job in jobs])  # noqa: B023
        seconds = Seconds(loop, unstable, ranking, normalising, multiplying)
        gallery_rows = rows[1][galleries[0]]
        again, reranking = timed(repeats, lambda: k_reciprocal(rows[0], gallery_rows))  # noqa: B023
        reranked = summarise(rank_queries(again, *jobs[0][:3]))
        record["searches"][f"{shots}-shot"] = row = {
            "gallery": len(galleries[0]),
            "columns": len(shown),
            "seconds": asdict(seconds),
            "ratios": seconds.ratios,
            "largest_difference": max(map(largest_difference, ours, loops)),
            "reranking_seconds_of_one_trial": reranking,
            "r1": float(np.mean([one.cmc[0] for one in ours])),
            "map": float(np.mean([one.map for one in ours])),
            "chance_r1": float(np.mean([one.chance_r1 for one in ours])),
            "reranked_r1_of_one_trial": float(reranked.cmc[0]),
            "reranked_map_of_one_trial": reranked.map,
        }
        sys.stdout.write(table(f"{shots}-shot", row, seconds))
    record["peak_bytes"] = peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts KiB
    sys.stdout.write(f"peak memory of the process {peak / 1e6:.0f} MB; {record['machine']}\n")
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n")
    worst = max(row["largest_difference"] for row in record["searches"].values())
    assert worst <= 1e-9 and peak < PEAK_LIMIT, (worst, peak)


def table(name: str, row: dict[str, Any], seconds: Seconds) -> str:
    """The figures of one search, as text."""
    shared = seconds.normalising + seconds.multiplying
    ratios = ", ".join(f"{name} {ratio:.1f}x" for name, ratio in row["ratios"].items())
    return (
        f"{name}: gallery {row['gallery']:,}; Rank-1 {row['r1']:.2%} (chance {row['chance_r1']:.2%}), "
        f"mAP {row['map']:.2%}; re-ranked {row['reranked_r1_of_one_trial']:.2%}, "
        f"{row['reranked_map_of_one_trial']:.2%}\n"
        f"  ranking alone    {seconds.ranking:7.3f} s   loop {seconds.loop:7.3f} s   "
        f"loop with an unstable sort {seconds.loop_unstable:7.3f} s\n"
        f"  end to end       {seconds.ranking + shared:7.3f} s   loop {seconds.loop + shared:7.3f} s   "
        f"(normalise {seconds.normalising:.3f} s, multiply {seconds.multiplying:.3f} s)\n"
        f"  ratios: {ratios}; largest difference of any metric {row['largest_difference']:.1e}\n"
        f"  re-ranking of one trial {row['reranking_seconds_of_one_trial']:.2f} s\n"
    )


def draw_gallery(generator: np.random.Generator, visible: Images, shots: int) -> Int64[np.ndarray, " g"]:
    """So many images of each person and camera, people ascending, inside cameras ascending."""
    groups = [
        np.flatnonzero((visible.people == person) & (visible.cameras == camera))
        for person in range(NUM_PEOPLE)
        for camera in (1, 2, 4, 5)
    ]
    return np.concatenate([generator.choice(group, shots, replace=False) for group in groups if len(group)])


def rank_trial(
    similarity: Float32[np.ndarray, "q m"],
    query_people: Int64[np.ndarray, " q"],
    gallery_people: Int64[np.ndarray, " g"],
    excluded: Bool[np.ndarray, "q g"],
    columns: Int64[np.ndarray, " g"],
) -> TrialMetrics:
    """One trial as vireid ranks it."""
    return summarise(rank_queries(similarity, query_people, gallery_people, excluded, columns=columns))


def loop_trial(
    similarity: Float32[np.ndarray, "q m"],
    query_people: Int64[np.ndarray, " q"],
    gallery_people: Int64[np.ndarray, " g"],
    excluded: Bool[np.ndarray, "q g"],
    columns: Int64[np.ndarray, " g"],
    sort: Any,
) -> Float64[np.ndarray, "22"]:
    """One trial as published code ranks it: query after query, sort all, mask, merge people. CMC, mAP and mINP.

    `sort`: "stable" keeps gallery order in ties, as the protocol wants; None is the default, which does not.
    """
    curves, precisions, penalties = [], [], []
    for query, person in enumerate(query_people):
        order = np.argsort(-similarity[query, columns], kind=sort)
        people = gallery_people[order[~excluded[query, order]]]
        match = people == person
        if not match.any():
            continue
        firsts = np.unique(people, return_index=True)[1]
        distinct = people[np.sort(firsts)]  # everybody once, where their best image stands
        curves.append(np.cumsum(distinct == person)[:CURVE_LENGTH])
        found = np.cumsum(match)
        precisions.append((found / np.arange(1, len(match) + 1))[match].mean())
        penalties.append(found[-1] / (np.flatnonzero(match)[-1] + 1))
    return np.array([*np.mean(curves, axis=0), np.mean(precisions), np.mean(penalties)])


def largest_difference(ours: TrialMetrics, loop: Float64[np.ndarray, "22"]) -> float:
    """Of any point of the curve, mAP or mINP."""
    return float(np.abs(np.array([*ours.cmc, ours.map, ours.minp]) - loop).max())


def warm_up(infrared: Images, visible: Images) -> None:
    """Load the compiled loops and the libraries, so that no measurement pays for them."""
    query, gallery = (unit_rows(images.features[:50], "rows") for images in (infrared, visible))
    summarise(
        rank_queries(k_reciprocal(query, gallery), np.zeros(50, np.int64), np.zeros(50, np.int64), np.eye(50) > 0)
    )


def timed(repeats: int, work: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and its seconds: the least of several, for others may use the machine."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return result, best


def machine() -> dict[str, Any]:
    """What the seconds depend on."""
    names = [line.partition(":")[2].strip() for line in processor_lines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": num_threads(),
        "multiplying_threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "versions": {name: version(name) for name in ("numpy", "numba", "faiss-cpu")},
    }


def processor_lines() -> list[str]:
    """What Linux says about the processor; elsewhere nothing."""
    described = Path("/proc/cpuinfo")
    return described.read_text().splitlines() if described.exists() else []


if __name__ == "__main__":
    typer.run(main)
