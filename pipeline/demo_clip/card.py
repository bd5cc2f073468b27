"""The model card: what the shipped weights are, how they were made, and what they can do. Written by machine."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from models.modality import PerModality
from pipeline.data.synthetic.writer import GENERATOR_VERSION
from pipeline.demo_clip.frozen import FrozenFigures
from pipeline.demo_clip.training import CONFIG_NAME, WEIGHTS_NAME, Recipe, TrainingSummary
from pipeline.demo_clip.zero_shot import AttributeScore, ZeroShotReport

CARD_NAME: Final = "MODEL_CARD.md"
MAX_BYTES: Final = 8_000_000
_PACKAGES: Final = ("torch", "open_clip_torch", "numpy", "numba")

_OPENING: Final = """# Demo CLIP

**This is not OpenAI CLIP.** It is a stand-in of the same architecture (a ResNet with attention pool, a text
transformer, CLIP's own vocabulary) with 3 million values, pre-trained on drawn people, so that every path from weights
to prompts runs without a download. Intended use: tests and the demonstration. No number that used it may stand beside
a published one; reports say `weights.kind = "demo"`.

No photograph was used. All images are drawn by this repository's generator; the people are others than those of any
drawn data set: tuples of the attributes that infrared shows are split between the two by a hash.

The images lie upright in the middle or at either side of a masked square, normalised with the mean and standard
deviation in `open_clip_config.json`. The loss is the symmetric contrast of images and captions, plus the cross-entropy
of naming each shown attribute by a short caption of its own: the text tower's output is the classifier, there are no
other weights. At the end the image tower's last map is scaled by a power of two, so that image vectors are about as
long as text vectors.
"""


def write_card(
    folder: Path,
    recipe: Recipe,
    summary: TrainingSummary,
    zero_shot: ZeroShotReport,
    frozen: Mapping[str, list[FrozenFigures]],
) -> None:
    """Write `MODEL_CARD.md` beside the weights that it describes.

    Args:
        folder: Holds configuration and weights.
        recipe: What was asked for.
        summary: What was done.
        zero_shot: What the network knows of held-out people.
        frozen: Figures of frozen features on the demonstration data, by difficulty and image size.
    """
    parts = [
        _OPENING,
        _files(folder),
        _training(recipe, summary),
        _zero_shot_table(zero_shot),
        _frozen_table(frozen),
    ]
    (folder / CARD_NAME).write_text("\n".join(parts), encoding="utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        f"* {summary.steps:,} steps in {summary.minutes:.0f} minutes: {summary.pairs:,} pairs, no person comes twice.",
        f"* Last losses: image-caption {summary.pair_loss:.3f}, attributes {summary.attribute_loss:.3f}.",
        f"* Recipe: {settings}.",
        "* So many minutes depend on the machine; with `steps` in their place one seed gives one file on one machine.",
        f"* Generator version {GENERATOR_VERSION}; Python {platform.python_version()}, {versions}.",
        "",
    ]
    return "\n".join(lines)


def _zero_shot_table(report: ZeroShotReport) -> str:
    names = list(dict.fromkeys([*report.attributes.visible, *report.attributes.infrared]))
    rows = [f"| {name} | {' | '.join(_cells(report.attributes, name))} |" for name in names]
    return "\n".join(
        [
            "## Zero-shot on held-out drawn people\n",
            "Accuracy, beside that of guessing a value and of always naming the commonest one.\n",
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
            "`pairs`: training people whose visible and infrared true-person prototypes are paired rightly.",
            "Rank-1 and mAP: infrared queries of the test people in ten single-shot visible galleries.\n",
            "| difficulty, size | feature | pairs | Rank-1 | mAP |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
