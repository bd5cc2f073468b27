"""What the demo CLIP has learned: zero-shot attributes and image-text recall on held-out drawn people."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.modality import Modality, PerModality
from pipeline.data.synthetic.captions import ATTRIBUTES
from pipeline.demo_clip.network import encode_captions, encode_images, normalise
from pipeline.demo_clip.pairs import PairSettings, PairSource, attribute_prompts, attribute_values, tokenize

_BATCH = 128
_RECALL_POOL = 256
_MIDDLE = 1
"""Held-out images lie in the middle of the square."""


@dataclass(frozen=True, slots=True)
class AttributeScore:
    """How often an attribute is named rightly, beside guessing a value and always giving the commonest one."""

    accuracy: float
    chance: float
    commonest: float
    num_images: int


@dataclass(frozen=True, slots=True)
class ZeroShotReport:
    """Scores of each attribute, and recall at 1 of 256 captions, by modality."""

    attributes: PerModality[dict[str, AttributeScore]]
    recall: PerModality[float]


def measure_zero_shot(network: nn.Module, settings: PairSettings, num_images: int = 1024) -> ZeroShotReport:
    """Name the attributes of held-out people by their prompts, and find each image's caption among 256.

    Cost: about 10 s a thousand images and modality on one core.
    """
    scores = PerModality.build(lambda modality: _measure(network, settings, modality, num_images))
    return ZeroShotReport(scores.map(lambda score: score[0]), scores.map(lambda score: score[1]))


@torch.inference_mode()
def _measure(
    network: Any, settings: PairSettings, modality: Modality, num_images: int
) -> tuple[dict[str, AttributeScore], float]:
    source = PairSource(settings, f"held out {modality.value}")
    pairs = [source.draw(modality) for _ in range(num_images)]
    was_training = network.training
    network.eval()
    pixels = torch.from_numpy(np.stack([pair.pixels for pair in pairs]))
    images = torch.cat([encode_images(network, normalise(some), _MIDDLE) for some in pixels.split(_BATCH)])
    captions = torch.cat(
        [
            encode_captions(
                network, torch.from_numpy(tokenize([pair.caption for pair in pairs[start : start + _BATCH]]))
            )
            for start in range(0, num_images, _BATCH)
        ]
    )
    prompts = encode_captions(network, torch.from_numpy(tokenize(attribute_prompts())))
    network.train(was_training)
    values = torch.tensor([attribute_values(pair.shown) for pair in pairs])
    return _name_attributes(images @ prompts.T, values), _recall(images, captions)


def _name_attributes(similarity: Tensor, values: Tensor) -> dict[str, AttributeScore]:
    blocks = similarity.split([len(options) for options in ATTRIBUTES.values()], dim=1)
    scores = {}
    for (name, options), block, of_one in zip(ATTRIBUTES.items(), blocks, values.T, strict=True):
        shown = of_one >= 0
        if shown.any():
            right = block[shown].argmax(dim=1) == of_one[shown]
            commonest = of_one[shown].bincount().max() / shown.sum()
            scores[name] = AttributeScore(
                right.float().mean().item(), 1 / len(options), commonest.item(), int(shown.sum())
            )
    return scores


def _recall(images: Tensor, captions: Tensor) -> float:
    """Share of images whose own caption is the most similar of 256, averaged over groups of 256."""
    groups = range(0, len(images) - _RECALL_POOL + 1, _RECALL_POOL)
    hits = [
        (images[start : start + _RECALL_POOL] @ captions[start : start + _RECALL_POOL].T).argmax(dim=1)
        == torch.arange(_RECALL_POOL)
        for start in groups
    ]
    return torch.cat(hits).float().mean().item()
