"""What each part of the method is worth on the drawn demonstration data, over several seeds.

The runs of one seed share stage `prepare`, which no variant changes: it is run once and handed on. A run that was
interrupted goes on, so the script can be stopped and started again. Writes `demo_ablation.json` and prints the table of
the README.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.demo_ablation --seeds 1,2,3 --parallel 2
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from benchmarks.ablation import centred, frozen, percent, retrieval, rounds_of, train
from models.encoder import Head
from pipeline.config.experiment import AnyConfig, digest_of, record_of
from pipeline.config.presets import load_config
from pipeline.console import set_up_logging
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import RunFolder

RELEASED_TEXT = "prompts.text_weight=1.0"
FROM_CLIP = "stages.carry_over=false"

VARIANTS: dict[str, list[str]] = {
    "text weight 1, as released": [RELEASED_TEXT],
    "text weight .3: preset `demo`": ["prompts.text_weight=0.3"],
    "no text": ["prompts.text_weight=0.0"],
    "from CLIP, text weight 1": [RELEASED_TEXT, FROM_CLIP],
    "from CLIP, text weight .3": ["prompts.text_weight=0.3", FROM_CLIP],
    "from CLIP, no text": ["prompts.text_weight=0.0", FROM_CLIP],
    "no swapping": [RELEASED_TEXT, "swap.mode=off"],
    "`exchange` swap": [RELEASED_TEXT, "swap.mode=exchange"],
    "alternating prompts": [
        RELEASED_TEXT,
        "prompts.refresh_every=5",
        "prompts.init=warm",
        "prompts.feature_source=current",
    ],
}


def main(
    data: Annotated[Path, typer.Option(help="The drawn demonstration data.")] = Path("data/drawn-demo"),
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "1,2,3",
    rows: Annotated[str, typer.Option(help="Names of rows, separated by semicolons; all by default.")] = "",
    parallel: Annotated[int, typer.Option(help="Runs at once, one thread each when more than 1.")] = 2,
    out: Annotated[Path, typer.Option(help="The folder for demo_ablation.json.")] = Path("benchmarks/results"),
) -> None:
    """Run what is missing, then gather."""
    numbers = [int(seed) for seed in seeds.split(",")]
    folders = {"data": {"root": str(data)}, "execution": {"runs_folder": str(runs), "tracking": False}}
    shared = {seed: configure([RELEASED_TEXT, "stages.clip_rounds=0"], seed, folders) for seed in numbers}
    names = [name.strip() for name in rows.split(";") if name.strip()] or list(VARIANTS)
    jobs = {(name, seed): configure(VARIANTS[name], seed, folders) for name in names for seed in numbers}
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn"), initializer=set_up_logging) as pool:
        list(pool.map(train, shared.values()))
        for (_, seed), config in jobs.items():
            hand_on(shared[seed], config)
        list(pool.map(train, jobs.values()))
    found = {name: [row] for name, row in frozen_baselines(data, runs).items()}
    found["stage `prepare` only"] = [gather(shared[seed]) for seed in numbers]
    found |= {name: [gather(jobs[name, seed]) for seed in numbers] for name in names}
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo_ablation.json").write_text(json.dumps({"seeds": numbers, "rows": found}, indent=1) + "\n")
    sys.stdout.write(table(found))


def configure(changes: list[str], seed: int, folders: dict[str, Any]) -> AnyConfig:
    """The demo with some changes."""
    return load_config("demo", [f"seed={seed}", "evaluation.every=1", *changes], folders)


def hand_on(start: AnyConfig, config: AnyConfig) -> None:
    """Let a run begin where stage `prepare` of another ended."""
    if run_path(config).exists():
        return
    with RunFolder.reopen(run_path(start)) as finished:
        checkpoint = finished.load_checkpoint()
    assert checkpoint is not None
    with RunFolder.open(run_path(config), record_of(config), digest_of(config)) as folder:
        folder.save_checkpoint(checkpoint)


def gather(config: AnyConfig) -> dict[str, Any]:
    """Retrieval and matching after the last round, labels over all rounds."""
    rounds, minutes = rounds_of(config)
    return retrieval(rounds[-1]) | {
        "precision": rounds[-1]["diagnostics/matching/precision"],
        "ari_visible": [row["diagnostics/visible/ari_all"] for row in rounds],
        "ari_infrared": [row["diagnostics/infrared/ari_all"] for row in rounds],
        "minutes": minutes,
    }


def frozen_baselines(data: Path, runs: Path) -> dict[str, dict[str, Any]]:
    """The same searches with the features of the untrained encoder: raw, and with each modality's own mean removed."""
    config = load_config(
        "demo", (), {"data": {"root": str(data)}, "execution": {"runs_folder": str(runs / "frozen"), "tracking": False}}
    )
    heads = {
        "frozen, raw neck": (Head.NECK,),
        "frozen, centred neck": (Head.NECK,),
        "frozen, centred projection": (Head.PROJECTION,),
    }
    return frozen(config, heads, {name: centred for name in heads if "centred" in name})


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean and standard deviation over seeds, percent."""
    lines = [
        "| variant | Rank-1 | mAP | matched pairs right | ARI visible, first to last | ARI infrared | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, results in rows.items():
        cells = [name, percent([one["r1"] for one in results]), percent([one["map"] for one in results])]
        if "minutes" in results[0]:
            cells.append(percent([one["precision"] for one in results]))
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
