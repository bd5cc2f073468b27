"""Which difficulty can be learned with the demo CLIP? The gate and frozen retrieval, by difficulty and image size.

Prints a table and writes `demo_gate.json`; see `pipeline/demo_clip/evaluation.py` for the measures.
`easy>default:0.5` is the difficulty half way between two others.

    python benchmarks/demo_gate.py --difficulties easy,default --sizes 96x48,128x64
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from models.clip import load_clip
from models.encoder import DualStemEncoder
from pipeline.data.synthetic.knobs import SyntheticKnobs, blend_knobs, knobs_for
from pipeline.demo_clip.evaluation import generate_demo, measure_frozen


def main(
    weights: Annotated[str, typer.Option(help="`demo`, or a folder in open_clip's form.")] = "demo",
    difficulties: Annotated[str, typer.Option(help="Comma-separated.")] = "easy,moderate,default,hard",
    sizes: Annotated[str, typer.Option(help="Height x width, comma-separated.")] = "96x48,128x64",
    seed: Annotated[int, typer.Option(help="Of the drawn people.")] = 1,
    per_camera: Annotated[int, typer.Option(help="At most so many images a person and camera.")] = 10,
    threads: Annotated[int, typer.Option(help="Torch threads.")] = 2,
    out: Annotated[Path, typer.Option(help="The folder for demo_gate.json.")] = Path("benchmarks/results"),
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    rows = []
    for difficulty in difficulties.split(","):
        drawn = generate_demo(named_knobs(difficulty), seed, per_camera)
        for size in sizes.split(","):
            height, width = (int(side) for side in size.split("x"))
            encoder = DualStemEncoder.from_clip(load_clip("demo", weights), image_height=height, image_width=width)
            for figures in measure_frozen(encoder, drawn, height, width):
                rows.append({"difficulty": difficulty, "size": size, **asdict(figures)})
                sys.stdout.write(
                    f"{difficulty:18} {size:7} {figures.feature:20} pairs {figures.pairs:6.1%}   "
                    f"Rank-1 {figures.rank1:6.1%}   mAP {figures.map:6.1%}\n"
                )
                sys.stdout.flush()
    out.mkdir(parents=True, exist_ok=True)
    (out / "demo_gate.json").write_text(json.dumps({"weights": weights, "seed": seed, "rows": rows}, indent=1) + "\n")


def named_knobs(difficulty: str) -> SyntheticKnobs:
    """The knobs of a preset, or between two."""
    if ":" not in difficulty:
        return knobs_for(difficulty)
    ends, share = difficulty.split(":")
    first, second = ends.split(">")
    return blend_knobs(knobs_for(first), knobs_for(second), float(share))


if __name__ == "__main__":
    typer.run(main)
