"""One epoch of the image stages: batches of both modalities, cluster memories, swapping, and the text loss.

Nothing inside a step waits for a GPU: what a step needs from the host is known before the epoch begins, losses are
added up where they are, and the host's part of swapping runs while the next batch is encoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.encoder import DualStemEncoder, Encoded, Head
from models.losses import prototype_contrast, text_classification
from models.memory import PrototypeMemory
from models.modality import Modality, PerModality
from models.precision import Precision, network_precision
from models.swap import CrossModalSwap
from pipeline.console import progress
from pipeline.data.augmentation import Normalisation, Recipe, augment
from pipeline.data.sampling import CrossModalBatches
from pipeline.errors import TrainingError
from pipeline.processes import ALONE, Processes
from pipeline.training.epoch_steps import EpochSteps, TrainingImagesAndLabels
from pipeline.training.network import gradients_of, joined_network, too_large

Augmentation = Callable[[Tensor, Modality, int], Tensor]
"""From this process's share of a batch of stored pixels to network input; the number is that of the whole batch."""

_MODALITIES = PerModality.build(lambda modality: modality)


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Image-to-text classification: the texts of both modalities, and how strongly and smoothly they teach."""

    features: PerModality[Float[Tensor, "clusters embed"]]
    weight: float
    smoothing: float


def train_epoch(
    encoder: DualStemEncoder,
    optimiser: torch.optim.Optimizer,
    sources: PerModality[TrainingImagesAndLabels],
    memories: PerModality[PrototypeMemory],
    batches: CrossModalBatches,
    *,
    temperature: float,
    momentum: float,
    swap: CrossModalSwap | None,
    text: TextLoss | None,
    augmentation: Augmentation,
    device: torch.device,
    precision: Precision = "float32",
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Train the encoder for one pass over `batches`; `encoder`, `optimiser` and `memories` change.

    Args:
        encoder: The two-stem encoder.
        optimiser: Its optimiser with this round's learning rate.
        sources: Images with labels, per modality.
        memories: This round's prototypes.
        batches: Positions of the images of each step, of all processes together.
        temperature: Divides similarities to prototypes.
        momentum: Weight of the old prototype in an update.
        swap: How matched prototypes are swapped; none before its round.
        text: The text loss; none in stage `prepare`.
        augmentation: Turns a batch of stored pixels of one modality into network input.
        device: Where the encoder is.
        precision: In which the network computes; losses and memories stay in float32.
        processes: Who trains together. Each encodes its share of every batch, and all compute the same losses.

    Returns:
        Mean of every loss term over the steps, and `total`.

    Raises:
        TrainingError: The loss is not finite; nothing of this epoch has been saved.

    Cost:
        One forward and backward pass a step; losses stay on the device until the epoch ends.

    Source: Chen et al., ACM MM 2023; released code, stages 0 and 2. Differs: memories change after the optimiser,
    by name, not inside `backward`.
    """
    steps = EpochSteps.plan(sources, batches, processes, device)
    encoder.train()
    with gradients_of(encoder, optimiser):
        try:
            sums = run_steps(
                joined_network(encoder, device, processes),
                optimiser,
                memories,
                steps,
                temperature=temperature,
                momentum=momentum,
                swap=swap,
                text=text,
                augmentation=augmentation,
                precision=precision,
            )
        except torch.OutOfMemoryError:
            sums = None  # not here: the error would keep the tensors of its frames alive
        if sums is None:
            raise too_large(
                encoder,
                _heads(text),
                num_clusters=batches.clusters_per_batch,
                images_per_cluster=batches.positions.visible.shape[1] // batches.clusters_per_batch.visible,
                precision=precision,
                device=device,
                processes=processes,
            )
    means = {name: float(total) / len(batches) for name, total in sums.items()}
    if not np.isfinite(means["total"]):
        raise _not_finite("in this epoch")
    return means


def run_steps(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    memories: PerModality[PrototypeMemory],
    steps: EpochSteps,
    *,
    temperature: float,
    momentum: float,
    swap: CrossModalSwap | None,
    text: TextLoss | None,
    augmentation: Augmentation,
    precision: Precision,
) -> dict[str, Float[Tensor, ""]]:
    """The steps of an epoch, without ever waiting for a GPU; see `train_epoch`.

    Returns:
        The sum of every loss term over the steps, on the device.
    """
    heads = _heads(text)
    sums: dict[str, Tensor] = {}
    for step, pixels in enumerate(progress(steps.pixel_batches(), "train", total=len(steps), unit="steps")):
        labels = steps.of_step(steps.labels, step)
        counts = labels.map(len)
        inputs = pixels.map_with(augmentation, _MODALITIES, counts)
        device = inputs.visible.device
        with network_precision(precision, device):
            encoded: PerModality[Encoded] = network(inputs, heads)
        features = encoded.map_with(partial(_gathered_neck, steps.processes), counts)
        if swap is not None:
            swap.settle()  # of the last step: its prototypes are needed from here on
        terms = _prototype_terms(features, memories, labels, temperature)
        if text is not None:
            projections = encoded.map_with(partial(_gathered_projection, steps.processes), counts)
            terms |= _text_terms(projections, steps.of_step(steps.text_rows, step), text)
        loss = torch.stack(list(terms.values())).sum()
        if device.type == "cpu" and not torch.isfinite(loss):
            # On a GPU this would stall every step; there the epoch's sums are looked at, before anything is saved.
            raise _not_finite(f"at step {step + 1}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        host_labels = steps.of_step(steps.host_labels, step)
        memories.map_with(lambda memory, f, y: memory.update(f, y, momentum), features, host_labels)
        if swap is not None:
            swap.prepare(memories, host_labels)
        for name, value in (terms | {"total": loss}).items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    if swap is not None:
        swap.settle()
    return sums


def build_augmentation(
    *,
    recipe: Recipe,
    padding: int,
    normalisation: Normalisation,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> Augmentation:
    """Bind the settings and the generator of an epoch's random changes, which are drawn for the whole batch."""

    def change(pixels: Tensor, modality: Modality, num_images: int) -> Tensor:
        return augment(
            pixels,
            modality,
            recipe=recipe,
            padding=padding,
            normalisation=normalisation,
            generator=generator,
            num_images=num_images,
            share=processes.share(num_images),
        )

    return change


def _gathered_neck(processes: Processes, encoded: Encoded, num_images: int) -> Float[Tensor, "batch dim"]:
    assert encoded.neck is not None
    return processes.gather_features(functional.normalize(encoded.neck, dim=1, eps=1e-12), num_images)


def _gathered_projection(processes: Processes, encoded: Encoded, num_images: int) -> Float[Tensor, "batch embed"]:
    assert encoded.projection is not None
    return processes.gather_features(encoded.projection, num_images)


def _prototype_terms(
    features: PerModality[Tensor],
    memories: PerModality[PrototypeMemory],
    labels: PerModality[Tensor],
    temperature: float,
) -> dict[str, Tensor]:
    losses = memories.map_with(
        lambda memory, f, y: prototype_contrast(memory.logits(f, temperature), y), features, labels
    )
    return {f"{modality}_prototype": loss for modality, loss in losses.items()}


def _text_terms(projections: PerModality[Tensor], text_rows: PerModality[Tensor], text: TextLoss) -> dict[str, Tensor]:
    losses = projections.map_with(
        lambda images, rows, texts: text.weight * text_classification(images @ texts.T, rows, text.smoothing),
        text_rows,
        text.features,
    )
    return {f"{modality}_text": value for modality, value in losses.items()}


def _heads(text: TextLoss | None) -> frozenset[Head]:
    return frozenset({Head.NECK} if text is None else {Head.NECK, Head.PROJECTION})


def _not_finite(when: str) -> TrainingError:
    return TrainingError(
        f"the loss is not finite {when}; the weights of the last finished round are kept",
        hint="lower optimisation.learning_rate or raise memory.temperature, and start the same command again",
    )
