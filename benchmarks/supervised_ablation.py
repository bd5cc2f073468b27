"""What each part of a supervised method is worth on the drawn demonstration data, over several seeds.

A run that was interrupted goes on, so the script can be stopped and started again. Writes `METHOD_ablation.json` and
prints the method's table of the documentation.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.supervised_ablation csdn --seeds 1,2,3 --parallel 2
"""

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

import typer

from benchmarks.ablation import frozen, percent, retrieval, rounds_of, train
from models.encoder import Head
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config
from pipeline.console import set_up_logging

NO_TEXT = ["losses.visible_text_weight=0.0", "losses.infrared_text_weight=0.0"]
NO_ALIGNMENT = ["semantics.alignment_weight=0.0"]
NO_VIEWS = ["semantics.views_weight=0.0"]
NO_PURIFICATION = ["semantics.purification_weight=0.0"]
ALONE = ["losses.gap_weight=0.0", "losses.triplet_weight=0.0"]


@dataclass(frozen=True, slots=True)
class Ablation:
    """The preset that a method's rows change, and what each of them changes, in the order of the table."""

    preset: str
    variants: Mapping[str, list[str]]


ABLATIONS = {
    "csdn": Ablation(
        "csdn-demo",
        {
            "identity losses only": NO_TEXT + ALONE,
            "+ triplet and modality gap, no text": NO_TEXT,
            "+ prompts per modality, not fused": ["fusion.kind=none"],
            "+ fused by `sum`": ["fusion.kind=sum"],
            "+ fused by `concat`": ["fusion.kind=concat"],
            "+ fused by `attn2`": ["fusion.kind=attn2"],
            "+ fused by `residual_mlp` (full)": [],
            "full, visible text loss only": ["losses.infrared_text_weight=0.0"],
            "full, infrared text loss only": ["losses.visible_text_weight=0.0"],
        },
    ),
    "eees": Ablation(
        "eees-demo",
        {
            "base": NO_ALIGNMENT + NO_VIEWS + NO_PURIFICATION,
            "+ alignment": NO_VIEWS + NO_PURIFICATION,
            "+ alignment, views": NO_PURIFICATION,
            "+ alignment, purification": NO_VIEWS,
            "full": [],
            "full, captions of other people": ["captions.control=shuffled"],
            "full, one sentence for all": ["captions.control=constant"],
        },
    ),
}


def main(
    method: Annotated[Literal["csdn", "eees"], typer.Argument(help="Whose parts.")],
    data: Annotated[Path, typer.Option(help="The drawn demonstration data.")] = Path("data/drawn-demo"),
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "1,2,3",
    parallel: Annotated[int, typer.Option(help="Runs at once, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="The folder for METHOD_ablation.json.")] = Path("benchmarks/results"),
) -> None:
    """Run what is missing, then gather."""
    numbers = [int(seed) for seed in seeds.split(",")]
    ablation = ABLATIONS[method]

    def configure(changes: list[str], folder: Path) -> AnyConfig:
        execution = {"runs_folder": str(folder), "tracking": False}
        return load_config(ablation.preset, changes, {"data": {"root": str(data)}, "execution": execution})

    jobs = {
        (name, seed): configure([f"seed={seed}", *changes], runs)
        for seed in numbers
        for name, changes in ablation.variants.items()
    }
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn"), initializer=set_up_logging) as pool:
        list(pool.map(train, jobs.values()))
    start = configure([], runs / "frozen")
    heads = tuple(Head(name) for name in start.evaluation.heads)
    rows: dict[str, list[dict[str, Any]]] = {
        name: [row] for name, row in frozen(start, {"CLIP start": heads}, {}).items()
    }
    rows |= {name: [gather(jobs[name, seed]) for seed in numbers] for name in ablation.variants}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{method}_ablation.json").write_text(json.dumps({"seeds": numbers, "rows": rows}, indent=1) + "\n")
    sys.stdout.write(table(rows))


def gather(config: AnyConfig) -> dict[str, Any]:
    """Retrieval after the last round, and the time of all rounds."""
    rounds, minutes = rounds_of(config)
    return retrieval(rounds[-1]) | {"minutes": minutes}


def table(rows: Mapping[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean and standard deviation over seeds, percent."""
    lines = ["| variant | Rank-1 | mAP | mAP, seed by seed | minutes |", "|---|---|---|---|---|"]
    for name, results in rows.items():
        found = [one["map"] for one in results]
        cells = [name, percent([one["r1"] for one in results]), percent(found)]
        if "minutes" in results[0]:
            cells.append(", ".join(f"{100 * value:.1f}" for value in found))
            cells.append(f"{mean(one['minutes'] for one in results):.1f}")
        else:
            cells += ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
