"""One epoch of CCLNet's image stages: cluster memories, swapping, and the text loss.

The host's part of swapping runs while the next batch is encoded, since only the loss of that batch needs its outcome.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from clustering.dbscan import OUTLIER, PseudoLabels
from models.encoder import DualStemEncoder, Encoded, Head
from models.losses import prototype_contrast, text_classification
from models.memory import PrototypeMemory
from models.modality import Modality, PerModality
from models.precision import Precision
from models.swap import CrossModalSwap
from models.transfer import upload
from pipeline.data.pixel_supply import PixelSupply
from pipeline.data.samplers.sampling import CrossModalBatches
from pipeline.data.transforms.augmentation import Normalisation, Recipe, augment
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.training.loop import Augmentation, EpochSteps, run_epoch


@dataclass(frozen=True, slots=True)
class TrainingImagesAndLabels:
    """The images of one modality: pixels, cluster, and the row of the text that described each (-1: none)."""

    pixels: PixelSupply
    labels: Int64[np.ndarray, " n"]
    text_rows: Int64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Image-to-text classification: the texts of both modalities, and how strongly and smoothly they teach."""

    features: PerModality[Float[Tensor, "_ embed"]]
    weight: float
    smoothing: float


def labelled_images(pixels: PixelSupply, labels: PseudoLabels, text: TextPrototypes | None) -> TrainingImagesAndLabels:
    """Put images, clusters and text rows side by side.

    Raises:
        ValueError: A text row is asked for that does not exist.
    """
    text_rows = np.full(len(labels.labels), OUTLIER, dtype=np.int64) if text is None else text.labels
    if text is not None and text_rows.max(initial=OUTLIER) >= text.features.shape[0]:
        raise ValueError(f"label {text_rows.max()} has no text: there are {text.features.shape[0]}")
    return TrainingImagesAndLabels(pixels, labels.labels, text_rows)


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
        TrainingError: The loss is not finite, or a batch does not fit into memory; nothing of this epoch was saved.

    Cost:
        One forward and backward pass a step; losses stay on the device until the epoch ends.

    Source: Chen et al., ACM MM 2023; released code, stages 0 and 2. Differs: memories change after the optimiser,
    by name, not inside `backward`.
    """
    objective = ClusterObjective.plan(
        sources, batches, memories, temperature=temperature, momentum=momentum, swap=swap, text=text, device=device
    )
    steps = EpochSteps(
        pixels=sources.map(lambda source: source.pixels),
        positions=batches.positions,
        groups=batches.clusters_per_batch,
        setting="batches.images_per_cluster",
        processes=processes,
    )
    return run_epoch(
        encoder, optimiser, objective, steps, augmentation=augmentation, device=device, precision=precision
    )


@dataclass(slots=True, eq=False)
class ClusterObjective:
    """Contrast with cluster memories, and classification by texts; labels of all steps are on the device already."""

    memories: PerModality[PrototypeMemory]
    host_labels: PerModality[Int64[Tensor, "steps _"]]
    labels: PerModality[Int64[Tensor, "steps _"]]
    text_rows: PerModality[Int64[Tensor, "steps _"]]
    temperature: float
    momentum: float
    swap: CrossModalSwap | None
    text: TextLoss | None
    features: PerModality[Float[Tensor, "_ dim"]] | None = None

    @staticmethod
    def plan(
        sources: PerModality[TrainingImagesAndLabels],
        batches: CrossModalBatches,
        memories: PerModality[PrototypeMemory],
        *,
        temperature: float,
        momentum: float,
        swap: CrossModalSwap | None,
        text: TextLoss | None,
        device: torch.device,
    ) -> "ClusterObjective":
        """Look up all labels of an epoch at once."""
        labels = sources.map_with(lambda source, at: source.labels[at], batches.positions)
        text_rows = sources.map_with(lambda source, at: source.text_rows[at], batches.positions)
        return ClusterObjective(
            memories=memories,
            host_labels=labels.map(torch.from_numpy),
            labels=labels.map(lambda rows: upload(rows, device)),
            text_rows=text_rows.map(lambda rows: upload(rows, device)),
            temperature=temperature,
            momentum=momentum,
            swap=swap,
            text=text,
        )

    @property
    def heads(self) -> frozenset[Head]:
        """The neck, and the projection where texts teach."""
        return frozenset({Head.NECK} if self.text is None else {Head.NECK, Head.PROJECTION})

    def terms(self, encoded: PerModality[Encoded], step: int) -> dict[str, Float[Tensor, ""]]:
        """Contrast with the prototypes as the last step left them, and the text loss."""
        features = encoded.map(_unit_neck)
        self.features = features.map(Tensor.detach)
        if self.swap is not None:
            self.swap.settle()  # of the last step: its prototypes are needed from here on
        contrast = self.memories.map_with(
            lambda memory, f, y: prototype_contrast(memory.logits(f, self.temperature), y[step]), features, self.labels
        )
        losses = {f"{modality}_prototype": loss for modality, loss in contrast.items()}
        return losses if self.text is None else losses | _text_terms(encoded, self.text_rows, step, self.text)

    def after_step(self, step: int) -> None:
        """Mix the batch into the memories, and begin to swap."""
        assert self.features is not None
        labels = self.host_labels.map(lambda rows: rows[step])
        self.memories.map_with(lambda memory, f, y: memory.update(f, y, self.momentum), self.features, labels)
        if self.swap is not None:
            self.swap.prepare(self.memories, labels)

    def finish(self) -> None:
        """Swap for the last step, too."""
        if self.swap is not None:
            self.swap.settle()


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


def _unit_neck(encoded: Encoded) -> Float[Tensor, "batch dim"]:
    assert encoded.neck is not None
    return functional.normalize(encoded.neck, dim=1, eps=1e-12)


def _text_terms(
    encoded: PerModality[Encoded], text_rows: PerModality[Int64[Tensor, "steps _"]], step: int, text: TextLoss
) -> dict[str, Tensor]:
    def loss(images: Encoded, rows: Tensor, texts: Tensor) -> Tensor:
        assert images.projection is not None
        return text.weight * text_classification(images.projection @ texts.T, rows[step], text.smoothing)

    return {f"{modality}_text": value for modality, value in encoded.map_with(loss, text_rows, text.features).items()}
