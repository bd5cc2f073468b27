"""Make the demo CLIP: train it, measure it, and write its model card."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from torch import nn

from models.clip import load_clip
from models.clip_files import file_digest
from models.encoder import DualStemEncoder
from models.modality import PerModality
from pipeline.data.synthetic.knobs import PRESETS
from pipeline.data.synthetic.writer import GENERATOR_VERSION
from pipeline.demo_clip.evaluation import (
    AttributeScore,
    FrozenFigures,
    ZeroShotReport,
    generate_demo,
    measure_frozen,
    measure_zero_shot,
)
from pipeline.demo_clip.training import CONFIG_NAME, WEIGHTS_NAME, Recipe, TrainingSummary, train_demo_clip

logger = logging.getLogger(__name__)

_SIZES = ((96, 48), (128, 64))
CARD_NAME: Final = "MODEL_CARD.md"
MAX_BYTES: Final = 8_000_000
_PACKAGES: Final = ("torch", "open_clip_torch", "numpy", "numba")
_OPENING: Final = """# Demo CLIP

**This is not OpenAI CLIP.** It has the same architecture (a ResNet with attention pool, a text transformer,
CLIP's own vocabulary) with 3 million values, pre-trained on synthetic people, so that every path from weights to
prompts runs without a download. Intended use: tests and the demonstration. No number that used it may be compared with
a published one; reports contain `weights.kind = "demo"`.

No photograph was used. All images come from this repository's generator; no person is in a synthetic data set: tuples
of the attributes that infrared shows are split between the two by a hash.

The images are upright in the middle or at either side of a masked square, normalised with the mean and standard
deviation in `open_clip_config.json`. The loss is the symmetric contrast of images and captions, plus the cross-entropy
of classifying each shown attribute by short captions of its values, without other weights than the two towers. At the
end the image tower's last map is scaled by a power of two, so that image vectors are about as long as text vectors.
"""


def make_demo_clip(
    folder: Path, *, minutes: float = 40.0, steps: int | None = None, seed: int = 1, threads: int = 2
) -> None:
    """Train the demo CLIP, then measure the weights in `folder` and write its card there.

    The time limit is `minutes`; with `steps` in its place, equal seeds give equal files on one machine. Generating
    images uses a core beside the `threads` of the training.

    Cost: `minutes`, and about five more for the measurements on two cores.
    """
    recipe = Recipe(minutes=minutes, steps=steps, seed=seed, threads=threads)
    summary = train_demo_clip(folder, recipe)
    describe_demo_clip(folder, recipe, summary)


def describe_demo_clip(folder: Path, recipe: Recipe, summary: TrainingSummary) -> None:
    """Measure the float16 weights in `folder`, and write the model card beside them."""
    size = (folder / WEIGHTS_NAME).stat().st_size
    assert size <= MAX_BYTES, f"{size:,} bytes are more than {MAX_BYTES:,}"
    network = saved_network(folder)
    zero_shot = measure_zero_shot(network, recipe.pairs)
    frozen: dict[str, list[FrozenFigures]] = {}
    for difficulty, knobs in PRESETS.items():
        drawn = generate_demo(knobs, seed=1, per_camera=10)
        for height, width in _SIZES:
            clip = load_clip("demo", str(folder))
            encoder = DualStemEncoder.from_clip(clip, image_height=height, image_width=width)
            frozen[f"{difficulty}, {height} x {width}"] = measure_frozen(encoder, drawn, height, width)
    write_card(folder, recipe, summary, zero_shot, frozen)
    logger.info("described the demo CLIP in %s", folder)


def saved_network(folder: Path) -> nn.Module:
    """The network with the weights in `folder`, in float32 and evaluation mode."""
    return load_clip("demo", str(folder)).model


def write_card(
    folder: Path,
    recipe: Recipe,
    summary: TrainingSummary,
    zero_shot: ZeroShotReport,
    frozen: Mapping[str, list[FrozenFigures]],
) -> None:
    """Write `MODEL_CARD.md` beside the weights in `folder`."""
    parts = [_OPENING, _files(folder), _training(recipe, summary), _zero_shot_table(zero_shot), _frozen_table(frozen)]
    (folder / CARD_NAME).write_text("\n".join(parts), encoding="utf-8")


def _files(folder: Path) -> str:
    rows = [
        f"| `{name}` | {(folder / name).stat().st_size:,} | `{file_digest(folder / name)}` |"
        for name in (CONFIG_NAME, WEIGHTS_NAME)
    ]
    return "\n".join(["## Files\n", "| file | bytes | SHA-256 |", "|---|---|---|", *rows, ""])


def _training(recipe: Recipe, summary: TrainingSummary) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    settings = ", ".join(f"{name} {value}" for name, value in asdict(recipe).items())
    lines = [
        "## Training\n",
        f"* {summary.steps:,} steps in {summary.minutes:.0f} minutes: {summary.pairs:,} pairs, each of a new person.",
        f"* Last losses: image-caption {summary.pair_loss:.3f}, attributes {summary.attribute_loss:.3f}.",
        f"* Recipe: {settings}.",
        "* A time limit depends on the machine; with `steps` in its place one seed gives one file on one machine.",
        f"* Generator version {GENERATOR_VERSION}; Python {platform.python_version()}, {versions}.",
        "",
    ]
    return "\n".join(lines)


def _zero_shot_table(report: ZeroShotReport) -> str:
    names = list(dict.fromkeys([*report.attributes.visible, *report.attributes.infrared]))
    rows = [f"| {name} | {' | '.join(_cells(report.attributes, name))} |" for name in names]
    return "\n".join(
        [
            "## Zero-shot on held-out synthetic people\n",
            "Accuracy, beside that of a random guess and of the most frequent value.\n",
            "| attribute | visible | guess | commonest | infrared | guess | commonest |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"The right one of 256 captions comes first for {report.recall.visible:.1%} of the visible images",
            f"and {report.recall.infrared:.1%} of the infrared ones (chance 0.4%).",
            "",
        ]
    )


def _cells(scores: PerModality[dict[str, AttributeScore]], name: str) -> list[str]:
    cells = []
    for of_one in scores:
        score = of_one.get(name)
        cells += [f"{score.accuracy:.1%}", f"{score.chance:.1%}", f"{score.commonest:.1%}"] if score else ["", "", ""]
    return cells


def _frozen_table(frozen: Mapping[str, list[FrozenFigures]]) -> str:
    rows = [
        f"| {name} | {figures.feature} | {figures.pairs:.1%} | {figures.rank1:.1%} | {figures.map:.1%} |"
        for name, some in frozen.items()
        for figures in some
    ]
    return "\n".join(
        [
            "## Frozen features on the demonstration data\n",
            "`pairs`: training people whose visible and infrared true-person prototypes are matched correctly.",
            "Rank-1 and mAP: infrared queries of the test people in ten single-shot visible galleries.\n",
            "| difficulty, size | feature | pairs | Rank-1 | mAP |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
