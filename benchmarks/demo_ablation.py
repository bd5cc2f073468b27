"""What each part of the method is worth on the drawn demonstration data, over several seeds.

Every variant is run as a user would run it (`vireid train demo --set ...`), each in its own process; a run that was
interrupted goes on, so the script can be stopped and started again. Writes `demo_ablation.json` and prints the table of
the README.

    python benchmarks/demo_ablation.py --seeds 1,2,3 --parallel 2
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import numpy as np
import typer

from models.encoder import Head
from models.modality import PerModality
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.features import FeatureBank
from pipeline.opening import open_run, run_path
from pipeline.presets import load_config
from pipeline.run_folder import RunFolder

FULL = "full, `released` swap"
VARIANTS: dict[str, list[str]] = {
    "full, no swapping": ["swap.mode=off"],
    "full, no text": ["prompts.text_weight=0.0"],
    FULL: [],
    "full, `exchange` swap": ["swap.mode=exchange"],
    "full, alternating prompts": ["prompts.refresh_every=5", "prompts.init=warm", "prompts.feature_source=current"],
}


def main(
    data: Annotated[Path, typer.Option(help="The drawn demonstration data.")] = Path("data/drawn-demo"),
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "1,2,3",
    parallel: Annotated[int, typer.Option(help="Runs at once, one thread each when more than 1.")] = 2,
    out: Annotated[Path, typer.Option(help="The folder for demo_ablation.json.")] = Path("benchmarks/results"),
) -> None:
    """Run what is missing, then gather."""
    numbers = [int(seed) for seed in seeds.split(",")]
    jobs = [(name, seed) for seed in numbers for name in VARIANTS]
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda job: train(VARIANTS[job[0]], job[1], data, runs, threads=2 if parallel == 1 else 1), jobs))
    rows = {name: [row] for name, row in frozen_baselines(data, runs).items()}
    # The first stage of the full run is that stage alone, bit for bit: it need not be run again.
    rows["stage `prepare` only"] = [gather(VARIANTS[FULL], seed, runs, stage="prepare") for seed in numbers]
    rows |= {name: [gather(changes, seed, runs) for seed in numbers] for name, changes in VARIANTS.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo_ablation.json").write_text(json.dumps({"seeds": numbers, "rows": rows}, indent=1) + "\n")
    sys.stdout.write(table(rows))


def train(changes: list[str], seed: int, data: Path, runs: Path, threads: int) -> None:
    """One run in its own process; results do not depend on tracking, which two processes would queue for."""
    settings = [f"seed={seed}", "evaluation.every=1", "execution.tracking=false", *changes]
    options = [part for change in settings for part in ("--set", change)]
    vireid = str(Path(sys.executable).parent / "vireid")
    command = [vireid, "train", "demo", "--data", str(data), "--runs", str(runs), *options, "--json"]
    home = (runs / "prefect" / threading.current_thread().name).resolve()
    home.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        "PREFECT_HOME": str(home),
    }
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def gather(changes: list[str], seed: int, runs: Path, stage: str = "clip") -> dict[str, Any]:
    """First round of one run, and the last round of a stage."""
    config = load_config(
        "demo", [f"seed={seed}", "evaluation.every=1", *changes], {"execution": {"runs_folder": str(runs)}}
    )
    with RunFolder.reopen(run_path(config)) as folder:
        rounds, timings = folder.read_metrics(), folder.read_timings()
    last = max(number for number, row in enumerate(rounds) if row["stage"] == stage)
    rounds, timings = rounds[: last + 1], timings[: last + 1]
    return {
        "r1": rounds[-1]["test/sysu/all/1-shot/agw/r1"],
        "map": rounds[-1]["test/sysu/all/1-shot/agw/map"],
        "precision": rounds[-1]["diagnostics/matching/precision"],
        "ari_visible": [row["diagnostics/visible/ari_all"] for row in rounds],
        "ari_infrared": [row["diagnostics/infrared/ari_all"] for row in rounds],
        "minutes": sum(timing["seconds/total"] for timing in timings) / 60,
    }


def frozen_baselines(data: Path, runs: Path) -> dict[str, dict[str, Any]]:
    """The same searches with the features of the untrained encoder: raw, and with each modality's own mean removed."""
    config = load_config(
        "demo", (), {"data": {"root": str(data)}, "execution": {"runs_folder": str(runs / "frozen"), "tracking": False}}
    )
    with open_run(config) as run:
        encoder = run.new_encoder()
        banks = {head: run.extract_test_features(head, encoder) for head in (Head.NECK, Head.PROJECTION)}
        chosen = {
            "frozen, raw neck": banks[Head.NECK],
            "frozen, centred neck": centred(banks[Head.NECK]),
            "frozen, centred projection": centred(banks[Head.PROJECTION]),
        }
        reports = {
            name: evaluate_features(
                features, run.dataset.test, searches=("sysu/all",), trials=config.evaluation.trials
            )[0]
            for name, features in chosen.items()
        }
    return {name: {"r1": report.mean.r1, "map": report.mean.map} for name, report in reports.items()}


def centred(banks: PerModality[FeatureBank]) -> PerModality[FeatureBank]:
    """Unit rows after removing the mean of the modality."""

    def centre(bank: FeatureBank) -> FeatureBank:
        vectors = bank.vectors - bank.vectors.mean(axis=0)
        return FeatureBank(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), bank.modality, bank.encoder_digest)

    return banks.map(centre)


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean and standard deviation over seeds, percent."""

    def cell(values: list[float]) -> str:
        spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * mean(values):.1f}{spread}"

    lines = [
        "| variant | Rank-1 | mAP | matched pairs right | ARI visible, first to last | ARI infrared | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, results in rows.items():
        cells = [name, cell([one["r1"] for one in results]), cell([one["map"] for one in results])]
        if "minutes" in results[0]:
            cells.append(cell([one["precision"] for one in results]))
            for modality in ("visible", "infrared"):
                first, last = (mean(one[f"ari_{modality}"][at] for one in results) for at in (0, -1))
                cells.append(f"{first:.2f} to {last:.2f}")
            cells.append(f"{mean(one['minutes'] for one in results):.1f}")
        else:
            cells += ["", "", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
