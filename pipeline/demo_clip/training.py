"""Pre-train the demo CLIP on drawn people that are drawn afresh at every step."""

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.data.synthetic.captions import ATTRIBUTES
from pipeline.demo_clip.network import (
    IMAGE_MEAN,
    IMAGE_STD,
    MODEL_CONFIG,
    encode_captions,
    encode_images,
    equalise_lengths,
    new_network,
    normalise,
)
from pipeline.demo_clip.pairs import PairBatch, PairSettings, attribute_prompts, drawn_batches, tokenize
from pipeline.runtime.seeds import derive_seed

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "open_clip_model.safetensors"
CONFIG_NAME = "open_clip_config.json"
_MAX_SCALE = math.log(100.0)
_LOG_SECONDS = 20.0
_SAVE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the demo CLIP is trained; every value is written into the model card.

    `minutes` sets the length; `steps`, when given, takes its place, and then the same seed gives the same file.
    """

    minutes: float = 40.0
    steps: int | None = None
    seed: int = 1
    batch: int = 192
    infrared_share: float = 0.35
    attribute_weight: float = 3.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: float = 0.04
    threads: int = 2
    height: int = 128
    width: int = 64

    @property
    def pairs(self) -> PairSettings:
        """What the drawing process needs to know."""
        return PairSettings(self.seed, self.batch, self.height, self.width, self.infrared_share)


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a pre-training run did."""

    steps: int
    pairs: int
    minutes: float
    pair_loss: float
    attribute_loss: float


def train_demo_clip(folder: Path, recipe: Recipe) -> TrainingSummary:
    """Train, and write configuration and weights into `folder`, at intervals and at the end.

    Cost: `recipe.minutes` on `recipe.threads` cores, and about a quarter of a core more for drawing; 6.2 MB on disk.
    """
    torch.set_num_threads(recipe.threads)
    network: Any = new_network(derive_seed(recipe.seed, "init"))
    network = network.to(memory_format=torch.channels_last).train()
    optimiser = _optimiser(network, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    started = saved = logged = time.monotonic()
    losses: list[tuple[float, float]] = []
    prompts = torch.from_numpy(tokenize(attribute_prompts()))
    step = 0
    with drawn_batches(recipe.pairs) as batches:
        for done in _shares_done(recipe, started):
            _set_learning_rate(optimiser, recipe, done)
            losses.append(
                _train_step(network, optimiser, next(batches), prompts, recipe.attribute_weight, column=step % 3)
            )
            step += 1
            now = time.monotonic()
            if now - logged > _LOG_SECONDS:
                _log(step, recipe, losses, now - started, network.logit_scale.exp().item())
                logged, losses = now, losses[-5:]
            if now - saved > _SAVE_SECONDS:
                save_weights(network, folder)
                saved = now
        last = next(batches)
    equalise_lengths(network, normalise(torch.from_numpy(last.pixels)), torch.from_numpy(last.tokens))
    save_weights(network, folder)
    minutes = (time.monotonic() - started) / 60
    pair_loss, attribute_loss = (sum(some) / max(len(some), 1) for some in zip(*losses, strict=True))
    return TrainingSummary(step, step * recipe.batch, minutes, pair_loss, attribute_loss)


def save_weights(network: nn.Module, folder: Path) -> None:
    """Write `open_clip_config.json` and the weights in float16; the weights appear whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": IMAGE_MEAN, "std": IMAGE_STD, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": preprocess}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {name: _half(value) for name, value in network.state_dict().items()}
    unfinished = folder / f"{WEIGHTS_NAME}.tmp"
    save_file(state, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)
    unfinished.replace(folder / WEIGHTS_NAME)


def contrast(images: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit vectors [n, e] each; pair i is row i of both.

    >>> round(contrast(torch.eye(2), torch.eye(2), torch.tensor(100.0)).item(), 6)
    0.0
    """
    logits = scale * images @ captions.T
    targets = torch.arange(len(images))
    return 0.5 * (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets))


def attribute_contrast(images: Tensor, prompts: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of naming each shown attribute by its prompts: what zero-shot accuracy measures.

    Args:
        images: Unit vectors [n, e].
        prompts: Unit vectors of `attribute_prompts()`.
        values: [n, attributes], -1 where an image does not show the attribute.
        scale: Factor on similarities.
    """
    logits = (scale * images @ prompts.T).split([len(options) for options in ATTRIBUTES.values()], dim=1)
    losses = [
        functional.cross_entropy(some, of_one, ignore_index=-1)
        for some, of_one in zip(logits, values.T, strict=True)
        if (of_one >= 0).any()
    ]
    return torch.stack(losses).mean()


def _train_step(
    network: Any,
    optimiser: torch.optim.Optimizer,
    batch: PairBatch,
    prompts: Tensor,
    weight: float,
    column: int,
) -> tuple[float, float]:
    images = encode_images(network, normalise(torch.from_numpy(batch.pixels)), column)
    captions = encode_captions(network, torch.from_numpy(batch.tokens))
    scale = network.logit_scale.exp()
    pairs = contrast(images, captions, scale)
    named = attribute_contrast(images, encode_captions(network, prompts), torch.from_numpy(batch.values), scale)
    loss = pairs + weight * named
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    with torch.no_grad():
        network.logit_scale.clamp_(max=_MAX_SCALE)
    return pairs.item(), named.item()


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [value for value in network.parameters() if value.ndim >= 2]
    others = [value for value in network.parameters() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _shares_done(recipe: Recipe, started: float) -> Iterator[float]:
    """The share of the run that is done before each step, until all of it is."""
    step = 0
    while True:
        spent = (time.monotonic() - started) / (60.0 * recipe.minutes)
        done = spent if recipe.steps is None else step / recipe.steps
        if done >= 1.0:
            return
        yield done
        step += 1


def _set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, done: float) -> None:
    rising = min(done / recipe.warm_up, 1.0)
    falling = 0.5 * (1.0 + math.cos(math.pi * max(done - recipe.warm_up, 0.0) / (1.0 - recipe.warm_up)))
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * max(rising * falling, 0.002)


def _log(step: int, recipe: Recipe, losses: list[tuple[float, float]], seconds: float, scale: float) -> None:
    pair_loss, attribute_loss = (sum(some) / len(losses) for some in zip(*losses, strict=True))
    logger.info(
        "step %d: pairs %.3f, attributes %.3f, scale %.1f, %.0f pairs/s, %.1f min",
        *(step, pair_loss, attribute_loss, scale, step * recipe.batch / seconds, seconds / 60),
    )


def _half(value: Tensor) -> Tensor:
    return value.detach().to(torch.float16).contiguous() if value.is_floating_point() else value.detach().contiguous()
