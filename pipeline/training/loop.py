"""The one training loop: batches of both modalities through the network, an objective's losses, an optimiser's step.

Nothing inside a step waits for a GPU: what a step needs from the host is known before the epoch begins, and losses are
added up where they are. A method says what it minimises by an `Objective`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality, PerModality
from models.precision import Precision, network_precision
from pipeline.console import progress
from pipeline.data.pixel_supply import PixelSupply
from pipeline.errors import TrainingError
from pipeline.runtime.distributed import Processes
from pipeline.training.network import gradients_of, joined_network, too_large

Augmentation = Callable[[Tensor, Modality, int], Tensor]
"""From this process's share of a batch of stored pixels to network input; the number is that of the whole batch."""

_MODALITIES = PerModality.build(lambda modality: modality)


@runtime_checkable
class Objective(Protocol):
    """What a method minimises, and what it does between the steps."""

    @property
    def heads(self) -> frozenset[Head]:
        """The features that the losses are computed from."""
        ...

    def terms(self, encoded: PerModality[Encoded], step: int) -> dict[str, Float[Tensor, ""]]:
        """The losses of a step by name, on the device; their sum is minimised.

        Args:
            encoded: Features of the whole batch, whichever process encoded them.
            step: Counted from 0.
        """
        ...

    def after_step(self, step: int) -> None:
        """What happens once the weights have changed."""
        ...

    def finish(self) -> None:
        """What happens after the last step."""
        ...


@dataclass(frozen=True, slots=True)
class EpochSteps:
    """What the steps of an epoch show.

    `positions` are those of all images of a step, whichever process encodes them; `groups` is the number of clusters or
    people that a batch of each modality is made of, and `setting` what decides how many images each of them has.
    """

    pixels: PerModality[PixelSupply]
    positions: PerModality[Int64[np.ndarray, "steps _"]]
    groups: PerModality[int]
    setting: str
    processes: Processes

    def __len__(self) -> int:
        return len(self.positions.visible)

    def sizes(self) -> PerModality[int]:
        """How many images the whole batch has."""
        return self.positions.map(lambda at: at.shape[1])

    def pixel_batches(self) -> Iterator[PerModality[UInt8[Tensor, "_ height width 3"]]]:
        """The pixels of this process's share of each step."""
        visible, infrared = self.pixels.map_with(
            lambda supply, at: supply.batches(list(at[:, self.processes.share(at.shape[1])])), self.positions
        )
        return (PerModality(*pair) for pair in zip(visible, infrared, strict=True))


def run_epoch(
    encoder: DualStemEncoder,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    steps: EpochSteps,
    *,
    augmentation: Augmentation,
    device: torch.device,
    precision: Precision,
) -> dict[str, float]:
    """Train for one epoch; `encoder`, `optimiser` and what belongs to `objective` change.

    Args:
        encoder: The two-stem encoder.
        optimiser: Of its parameters and of the objective's own, with this epoch's learning rate.
        objective: What is minimised.
        steps: What is shown.
        augmentation: Turns a batch of stored pixels of one modality into network input.
        device: Where everything is.
        precision: In which the network computes.

    Returns:
        Mean of every loss term over the steps, and `total`.

    Raises:
        TrainingError: The loss is not finite, or a batch does not fit into memory; nothing of this epoch was saved.
    """
    encoder.train()
    with gradients_of(encoder, optimiser):
        try:
            network = joined_network(encoder, device, steps.processes)
            sums = run_steps(network, optimiser, objective, steps, augmentation=augmentation, precision=precision)
        except torch.OutOfMemoryError:
            sums = None  # not here: the error would keep the tensors of its frames alive
        if sums is None:
            raise too_large(
                encoder,
                objective.heads,
                groups=steps.groups,
                images_per_group=steps.sizes().visible // steps.groups.visible,
                setting=steps.setting,
                precision=precision,
                device=device,
                processes=steps.processes,
            )
    means = {name: float(total) / len(steps) for name, total in sums.items()}
    if not np.isfinite(means["total"]):
        raise _not_finite("in this epoch")
    return means


def run_steps(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    steps: EpochSteps,
    *,
    augmentation: Augmentation,
    precision: Precision,
) -> dict[str, Float[Tensor, ""]]:
    """The steps of an epoch, without ever waiting for a GPU; see `run_epoch`.

    Returns:
        The sum of every loss term over the steps, on the device.
    """
    sums: dict[str, Tensor] = {}
    sizes = steps.sizes()
    for step, pixels in enumerate(progress(steps.pixel_batches(), "train", total=len(steps), unit="steps")):
        inputs = pixels.map_with(augmentation, _MODALITIES, sizes)
        device = inputs.visible.device
        with network_precision(precision, device):
            encoded: PerModality[Encoded] = network(inputs, objective.heads)
        terms = objective.terms(encoded.map_with(partial(_gathered, steps.processes), sizes), step)
        loss = torch.stack(list(terms.values())).sum()
        if device.type == "cpu" and not torch.isfinite(loss):
            # On a GPU this would stall every step; there the epoch's sums are looked at, before anything is saved.
            raise _not_finite(f"at step {step + 1}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        objective.after_step(step)
        for name, value in (terms | {"total": loss}).items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    objective.finish()
    return sums


def _gathered(processes: Processes, encoded: Encoded, num_images: int) -> Encoded:
    return encoded.each(lambda rows: processes.gather_features(rows, num_images))


def _not_finite(when: str) -> TrainingError:
    return TrainingError(
        f"the loss is not finite {when}; the weights of the last finished round are kept",
        hint="lower optimisation.learning_rate, and start again",
    )
