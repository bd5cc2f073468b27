"""What each switch beyond CCLNet is worth on synthetic people, alone, on top of others, and left out of the bundle.

Choices are made on drawing seeds 1 and 3; seeds 2 and 4 are for the report. Rows that leave stage `prepare` as it is
share it. A run that was interrupted goes on, so the script can be stopped and started again; it gathers what is
finished. Writes `plus_ablation.json` and prints a table for each drawing seed.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.plus_ablation --people 1,3 --seeds 1 --parallel 2
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.ablation import percent, retrieval, rounds_of, train
from benchmarks.demo_ablation import hand_on
from pipeline.config.experiment import AnyConfig, planned_rounds
from pipeline.config.presets import load_config
from pipeline.console import set_up_logging
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.runs.open import run_path

UNIFIED = ("matching.method=mutual", "swap.mode=off", "loss.contrast=unified", "loss.start=9")
LIGHT_TEXT = "prompts.text_weight=0.3"

ROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    "text weight .3": (LIGHT_TEXT,),
    "no text": ("prompts.text_weight=0",),
    "cosine logits": ("prompts.logits=cosine",),
    "mutual pairs": ("matching.method=mutual",),
    "cross contrast": ("matching.method=mutual", "swap.mode=off", "loss.contrast=cross", "loss.start=9"),
    "channel exchange": ("augmentation.channel=exchange",),
    "hard prototypes": ("memory.hard=true",),
    "refresh by agreement": ("prompts.refresh_agreement=0.9", "prompts.init=warm", "prompts.feature_source=current"),
    "unified contrast": UNIFIED,
    "unified, text .3": (*UNIFIED, LIGHT_TEXT),
    "unified, no text": (*UNIFIED, "prompts.text_weight=0"),
    "unified, text .3, cosine": (*UNIFIED, LIGHT_TEXT, "prompts.logits=cosine"),
    "unified, text .3, shared texts": (*UNIFIED, LIGHT_TEXT, "prompts.shared=true"),
    "unified, text .3, cross text": (*UNIFIED, LIGHT_TEXT, "prompts.cross_weight=0.3"),
    "unified, text .3, confidence": (*UNIFIED, LIGHT_TEXT, "loss.confidence=true"),
    "unified, text .3, exchange": (*UNIFIED, LIGHT_TEXT, "augmentation.channel=exchange"),
    "unified, text .3, exchange, distillation": (
        *UNIFIED, LIGHT_TEXT, "augmentation.channel=exchange", "loss.distillation=1",
    ),
    "unified, text .3, hard prototypes": (*UNIFIED, LIGHT_TEXT, "memory.hard=true"),
}  # fmt: skip
"""Changes to preset `demo`, by the name of the row."""

IN_PREPARE = ("augmentation.", "memory.hard", "labelling.")
"""Settings that change stage `prepare`."""

Key = tuple[str, int, int]
"""Row, drawing seed, training seed."""


def main(
    data: Annotated[Path, typer.Option(help="Folder of the generated data sets.")] = Path("data"),
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs/plus"),
    people: Annotated[str, typer.Option(help="Drawing seeds, separated by commas.")] = "1,3",
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = "1",
    rows: Annotated[str, typer.Option(help="Parts of names of rows, separated by commas; all by default.")] = "",
    parallel: Annotated[int, typer.Option(help="Runs at once, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of plus_ablation.json.")] = Path("benchmarks/results"),
) -> None:
    """Run what is missing, then gather everything that is finished."""
    wanted = [part.strip() for part in rows.split(",") if part.strip()]
    chosen = {name: row for name, row in ROWS.items() if not wanted or any(part in name for part in wanted)}
    drawings, training = ([int(seed) for seed in some.split(",")] for some in (people, seeds))
    for drawing in drawings:
        if not (data / f"demo-{drawing}").exists():
            generate_dataset(data / f"demo-{drawing}", size="demo", seed=drawing)
    jobs: dict[Key, AnyConfig] = {
        (name, drawing, seed): _configure(row, drawing, seed, data, runs)
        for seed in training for drawing in drawings for name, row in chosen.items()
    }  # fmt: skip
    shared = {
        (drawing, seed): _configure(("stages.clip_rounds=0",), drawing, seed, data, runs)
        for drawing in drawings for seed in training
    }  # fmt: skip
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn"), initializer=set_up_logging) as pool:
        list(pool.map(train, shared.values()))
        for (name, drawing, seed), config in jobs.items():
            if not any(change.startswith(IN_PREPARE) for change in chosen[name]):
                hand_on(shared[drawing, seed], config)
        list(pool.map(train, jobs.values()))
    results = _merged(out / "plus_ablation.json", {key: gather(config) for key, config in jobs.items()})
    sys.stdout.write("\n".join(_table(drawing, results) for drawing in sorted({one["people"] for one in results})))


def gather(config: AnyConfig) -> dict[str, Any]:
    """Retrieval after the last round, and the quality of clusters and pairs in every round."""
    rounds, minutes = rounds_of(config)
    assert len(rounds) == len(planned_rounds(config)), f"{run_path(config)} is not finished"
    quality = {
        "pairs_right": "diagnostics/matching/precision",
        "matched": "labels/matched_share",
        "mutual": "labels/mutual_share",
        "ari_visible": "diagnostics/visible/ari_all",
        "ari_infrared": "diagnostics/infrared/ari_all",
    }
    series = {name: [row.get(key) for row in rounds] for name, key in quality.items()}
    return retrieval(rounds[-1]) | series | {"minutes": minutes}


def _configure(row: tuple[str, ...], drawing: int, seed: int, data: Path, runs: Path) -> AnyConfig:
    folders = {
        "data": {"root": str(data / f"demo-{drawing}")},
        "execution": {"runs_folder": str(runs / f"people-{drawing}"), "tracking": False, "figures": False},
    }
    return load_config("demo", [f"seed={seed}", *row], folders)


def _merged(file: Path, found: dict[Key, dict[str, Any]]) -> list[dict[str, Any]]:
    """Add results to those in the file, which may come from other rows and seeds."""
    before = json.loads(file.read_text())["results"] if file.exists() else []
    results = {(one["row"], one["people"], one["seed"]): one for one in before}
    for (name, drawing, seed), one in found.items():
        results[name, drawing, seed] = {"row": name, "people": drawing, "seed": seed, **one}
    file.parent.mkdir(parents=True, exist_ok=True)
    ordered = [results[key] for key in sorted(results)]
    file.write_text(json.dumps({"changes": {name: list(row) for name, row in ROWS.items()}, "results": ordered}) + "\n")
    return ordered


def _table(drawing: int, results: list[dict[str, Any]]) -> str:
    lines = [f"people of drawing seed {drawing}", "", "| row | seeds | Rank-1 | mAP | pairs right | minutes |"]
    lines.append("|---|---|---|---|---|---|")
    for name in ROWS:
        own = [one for one in results if (one["row"], one["people"]) == (name, drawing)]
        if own:
            numbers = [percent([one[key] for one in own]) for key in ("r1", "map")]
            right = percent([one["pairs_right"][-1] for one in own])
            minutes = f"{sum(one['minutes'] for one in own) / len(own):.1f}"
            lines.append("| " + " | ".join([name, str(len(own)), *numbers, right, minutes]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
