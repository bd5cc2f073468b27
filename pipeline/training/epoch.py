"""One epoch of the image stages: batches of both modalities, cluster memories, swapping, and the text loss."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from clustering.dbscan import OUTLIER, PseudoLabels
from models.encoder import DualStemEncoder, Encoded, Head
from models.losses import prototype_contrast, text_classification
from models.memory import CrossModalSwap, PrototypeMemory
from models.modality import Modality, PerModality
from pipeline.console import progress
from pipeline.data.augmentation import Normalisation, Recipe, augment
from pipeline.data.images import StoredImages, gather_pixels
from pipeline.data.sampling import CrossModalBatches
from pipeline.errors import TrainingError
from pipeline.training.state import TextPrototypes

_MODALITIES = PerModality.build(lambda modality: modality)


@dataclass(frozen=True, slots=True)
class TrainingImagesAndLabels:
    """The images of one modality: pixels, cluster, and the row of the text that described each (-1: none)."""

    images: StoredImages
    labels: Int64[np.ndarray, " n"]
    text_rows: Int64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Image-to-text classification: the texts of both modalities, and how strongly and smoothly they teach."""

    features: PerModality[Float[Tensor, "clusters embed"]]
    weight: float
    smoothing: float


def labelled_images(images: StoredImages, labels: PseudoLabels, text: TextPrototypes | None) -> TrainingImagesAndLabels:
    """Put images, clusters and text rows side by side.

    Raises:
        ValueError: A text row is asked for that does not exist.
    """
    text_rows = np.full(len(labels.labels), OUTLIER, dtype=np.int64) if text is None else text.labels
    if text is not None and text_rows.max(initial=OUTLIER) >= text.features.shape[0]:
        raise ValueError(f"label {text_rows.max()} has no text: there are {text.features.shape[0]}")
    return TrainingImagesAndLabels(images, labels.labels, text_rows)


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
    augmentation: Callable[[Tensor, Modality], Tensor],
    device: torch.device,
) -> dict[str, float]:
    """Train the encoder for one pass over `batches`; `encoder`, `optimiser` and `memories` change.

    Args:
        encoder: The two-stem encoder.
        optimiser: Its optimiser with this round's learning rate.
        sources: Images with labels, per modality.
        memories: This round's prototypes.
        batches: Positions of the images of each step.
        temperature: Divides similarities to prototypes.
        momentum: Weight of the old prototype in an update.
        swap: How matched prototypes are swapped; none before its round.
        text: The text loss; none in stage `prepare`.
        augmentation: Turns a batch of stored pixels of one modality into network input.
        device: Where the encoder is.

    Returns:
        Mean of every loss term over the steps, and `total`.

    Raises:
        TrainingError: The loss is not finite; nothing of this epoch has been saved.

    Cost:
        One forward and backward pass a step; losses stay on the device until the epoch ends.

    Source: Chen et al., ACM MM 2023; released code, stages 0 and 2. Differs: memories change after the optimiser,
    by name, not inside `backward`.
    """
    heads = frozenset({Head.NECK}) if text is None else frozenset({Head.NECK, Head.PROJECTION})
    encoder.train()
    sums: dict[str, Tensor] = {}
    for step, positions in enumerate(progress(batches, "train", unit="steps"), start=1):
        pixels = positions.map_with(lambda at, source: gather_pixels(source.images, at), sources)
        inputs = pixels.map_with(
            lambda stored, modality: augmentation(torch.from_numpy(stored).to(device, non_blocking=True), modality),
            _MODALITIES,
        )
        labels = positions.map_with(lambda at, source: torch.from_numpy(source.labels[at]), sources)
        encoded = encoder(inputs, heads)
        features = encoded.map(_unit_neck)
        terms = _prototype_terms(features, memories, labels, temperature)
        if text is not None:
            terms |= _text_terms(encoded, positions, sources, text)
        loss = torch.stack(list(terms.values())).sum()
        if device.type == "cpu" and not torch.isfinite(loss):
            # On a GPU this would stall every step; there the epoch's sums are looked at, before anything is saved.
            raise _not_finite(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        _update_memories(memories, features.map(Tensor.detach), labels, momentum, swap)
        for name, value in (terms | {"total": loss}).items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    means = {name: float(total) / len(batches) for name, total in sums.items()}
    if not np.isfinite(means["total"]):
        raise _not_finite(len(batches))
    return means


def build_augmentation(
    *, recipe: Recipe, padding: int, normalisation: Normalisation, generator: torch.Generator
) -> Callable[[Tensor, Modality], Tensor]:
    """Bind the settings and the generator of an epoch's random changes."""

    def change(pixels: Tensor, modality: Modality) -> Tensor:
        return augment(
            pixels, modality, recipe=recipe, padding=padding, normalisation=normalisation, generator=generator
        )

    return change


def _unit_neck(encoded: Encoded) -> Float[Tensor, "batch dim"]:
    assert encoded.neck is not None
    return functional.normalize(encoded.neck, dim=1, eps=1e-12)


def _prototype_terms(
    features: PerModality[Tensor],
    memories: PerModality[PrototypeMemory],
    labels: PerModality[Tensor],
    temperature: float,
) -> dict[str, Tensor]:
    losses = memories.map_with(
        lambda memory, f, y: prototype_contrast(memory.logits(f, temperature), y.to(f.device)), features, labels
    )
    return {f"{modality}_prototype": loss for modality, loss in losses.items()}


def _text_terms(
    encoded: PerModality[Encoded],
    positions: PerModality[Int64[np.ndarray, " batch"]],
    sources: PerModality[TrainingImagesAndLabels],
    text: TextLoss,
) -> dict[str, Tensor]:
    def loss(images: Encoded, at: np.ndarray, source: TrainingImagesAndLabels, texts: Tensor) -> Tensor:
        assert images.projection is not None
        rows = torch.from_numpy(source.text_rows[at]).to(texts.device)
        return text.weight * text_classification(images.projection @ texts.T, rows, text.smoothing)

    losses = encoded.map_with(loss, positions, sources, text.features)
    return {f"{modality}_text": value for modality, value in losses.items()}


def _update_memories(
    memories: PerModality[PrototypeMemory],
    features: PerModality[Tensor],
    labels: PerModality[Tensor],
    momentum: float,
    swap: CrossModalSwap | None,
) -> None:
    memories.map_with(lambda memory, f, y: memory.update(f, y, momentum), features, labels)
    if swap is not None:
        swap.apply(memories, labels)


def _not_finite(step: int) -> TrainingError:
    return TrainingError(
        f"the loss is not finite at step {step}; the weights of the last finished round are kept",
        hint="lower optimisation.learning_rate or raise memory.temperature, and start the same command again",
    )
