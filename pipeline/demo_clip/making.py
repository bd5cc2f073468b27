"""The whole of it: train the demo CLIP, measure it, and write its card."""

import logging
from pathlib import Path

from torch import nn

from models.clip import load_clip
from models.encoder import DualStemEncoder
from pipeline.data.synthetic.knobs import PRESETS
from pipeline.demo_clip.card import MAX_BYTES, write_card
from pipeline.demo_clip.frozen import FrozenFigures, draw_demo, measure_frozen
from pipeline.demo_clip.training import WEIGHTS_NAME, Recipe, TrainingSummary, train_demo_clip
from pipeline.demo_clip.zero_shot import measure_zero_shot

logger = logging.getLogger(__name__)

_SIZES = ((96, 48), (128, 64))


def make_demo_clip(
    folder: Path, *, minutes: float = 40.0, steps: int | None = None, seed: int = 1, threads: int = 2
) -> None:
    """Train the demo CLIP, then measure the weights in `folder` and describe them there.

    Args:
        folder: Configuration, weights and card are written into it.
        minutes: Time budget of the training.
        steps: Length of the training in steps, in place of minutes; then one seed gives one file on one machine.
        seed: Of weights and people.
        threads: Of the training; a core more is of use for drawing.

    Cost: `minutes`, and about five more for the measurements on two cores.
    """
    recipe = Recipe(minutes=minutes, steps=steps, seed=seed, threads=threads)
    summary = train_demo_clip(folder, recipe)
    describe_demo_clip(folder, recipe, summary)


def describe_demo_clip(folder: Path, recipe: Recipe, summary: TrainingSummary) -> None:
    """Measure the weights as they lie in `folder`, in float16, and write the model card beside them."""
    size = (folder / WEIGHTS_NAME).stat().st_size
    assert size <= MAX_BYTES, f"{size:,} bytes are more than {MAX_BYTES:,}"
    network = saved_network(folder)
    zero_shot = measure_zero_shot(network, recipe.pairs)
    frozen: dict[str, list[FrozenFigures]] = {}
    for difficulty, knobs in PRESETS.items():
        drawn = draw_demo(knobs, seed=1, per_camera=10)
        for height, width in _SIZES:
            clip = load_clip("demo", str(folder))
            encoder = DualStemEncoder.from_clip(clip, image_height=height, image_width=width)
            frozen[f"{difficulty}, {height} x {width}"] = measure_frozen(encoder, drawn, height, width)
    write_card(folder, recipe, summary, zero_shot, frozen)
    logger.info("described the demo CLIP in %s", folder)


def saved_network(folder: Path) -> nn.Module:
    """The network with the weights that lie in `folder`, in float32 and evaluation mode."""
    return load_clip("demo", str(folder)).model
