"""What exact batch norms cost and are worth, beside torch's own: a training step of the demo network on a CPU.

Both networks take the same steps in turns, so that other work slows both. Gradients are compared with float64 for
several batches, because a ReLU that rounding switches moves them in any layout: hence also those of the ordinary
layout, where torch's sums are exact. Prints, and writes `batch_norms.json`.

    python -m benchmarks.batch_norms
"""

import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import nn

from benchmarks.clustering_machine import describe_machine
from benchmarks.clustering_probes import timed
from models.clip import load_clip
from models.encoder import DualStemEncoder, Head
from models.exact_batch_norm import ExactBatchNorm2d
from models.modality import Modality, PerModality
from pipeline.runtime.device import cpu_threads

IMAGES, SIZE, BATCHES = 64, (96, 48), 7
ORDINARY = "torch, ordinary layout"


def main(
    repeats: Annotated[int, typer.Option(help="Steps of each network; the median counts.", min=1)] = 40,
    out: Annotated[Path, typer.Option(help="The folder for batch_norms.json.")] = Path("benchmarks/results"),
) -> None:
    """Measure with one and with two threads."""
    exact = DualStemEncoder.from_clip(load_clip("demo", "demo"), image_height=SIZE[0], image_width=SIZE[1]).train()
    plain = with_torchs_norms(exact)
    ordinary = copy.deepcopy(plain).to(memory_format=torch.contiguous_format)
    networks = {"exact": exact, "torch": plain, ORDINARY: ordinary}
    found: dict[str, Any] = {"machine": describe_machine()}
    for threads in (1, 2):
        with cpu_threads(threads):
            seconds = alternate([exact, plain], *drawn(exact, 0), repeats)
            errors = [errors_of(networks, *drawn(exact, seed)) for seed in range(1, BATCHES + 1)]
        found[f"{threads} threads"] = {
            "exact_ms": 1000 * seconds[0],
            "torch_ms": 1000 * seconds[1],
            "ratio": seconds[0] / seconds[1],
            "gradient_errors": {name: sorted(one[name] for one in errors) for name in networks},
        }
    out.mkdir(parents=True, exist_ok=True)
    (out / "batch_norms.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def drawn(encoder: DualStemEncoder, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise in place of the images of both modalities, and weights of their features in the loss."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2 * IMAGES, 3, *SIZE, generator=generator).to(memory_format=torch.channels_last)
    return images, torch.randn(2 * IMAGES, encoder.feature_width, generator=generator)


def errors_of(networks: Mapping[str, DualStemEncoder], images: torch.Tensor, weights: torch.Tensor) -> dict[str, float]:
    """Error of the gradients of each network, see `gradient_error`."""
    expected = gradients(copy.deepcopy(networks["torch"]).double(), images.double(), weights.double())
    inputs = {name: images.contiguous() if name == ORDINARY else images for name in networks}
    return {name: gradient_error(gradients(one, inputs[name], weights), expected) for name, one in networks.items()}


def with_torchs_norms(encoder: DualStemEncoder) -> DualStemEncoder:
    """Return a copy of an encoder whose batch norms are torch's."""
    plain = copy.deepcopy(encoder)
    for module in plain.modules():
        if type(module) is ExactBatchNorm2d:
            module.__class__ = nn.BatchNorm2d
    return plain


def step(encoder: DualStemEncoder, images: torch.Tensor, weights: torch.Tensor) -> None:
    """One forward and backward pass of a batch of both modalities."""
    both = PerModality(images[:IMAGES], images[IMAGES:])
    encoder.zero_grad()
    features = [encoder.encode(both[one], one, heads=frozenset({Head.NECK})).neck for one in Modality]
    (torch.cat([one for one in features if one is not None]) * weights).sum().backward()


def gradients(encoder: DualStemEncoder, images: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of all parameters that have one, in one order."""
    step(encoder, images, weights)
    return [one.grad.clone() for one in encoder.parameters() if one.grad is not None]


def gradient_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Median over parameters of the relative error (L2) of their gradients."""
    return median(float((one - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True))


def alternate(
    encoders: list[DualStemEncoder], images: torch.Tensor, weights: torch.Tensor, repeats: int
) -> list[float]:
    """Median seconds of a step of each encoder."""
    taken: list[list[float]] = [[] for _ in encoders]
    for _ in range(repeats + 3):
        for own, encoder in zip(taken, encoders, strict=True):
            own.append(timed(lambda encoder=encoder: step(encoder, images, weights))[1])
    return [median(own[3:]) for own in taken]


if __name__ == "__main__":
    typer.run(main)
