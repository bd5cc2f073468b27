"""Objective of CCLNet's image stages: contrast with cluster memories, and classification by text prototypes.

The host's part of swapping runs while the next batch is encoded; only the loss of that batch needs the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.encoder import Head
from models.losses import prototype_contrast, text_classification
from models.memory import MemoryUpdate, PrototypeMemory
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from models.swap import CrossModalSwap
from models.transfer import upload
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.training.objective import Batch, Objective, Term


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Image-to-text classification: text prototypes with the labels they were learned on, weight and smoothing."""

    prototypes: PerModality[TextPrototypes]
    weight: float
    smoothing: float


def cluster_objective(
    labels: PerModality[Int64[np.ndarray, " n"]],
    memories: PerModality[PrototypeMemory],
    *,
    temperature: float,
    update: MemoryUpdate,
    swap: CrossModalSwap | None = None,
    text: TextLoss | None = None,
    extra_terms: Sequence[Term] = (),
) -> Objective:
    """The terms of one epoch, and the updates of its memories after each step.

    `labels` is the cluster of each training image, -1 for outliers, which are in no batch. The epoch changes
    `memories`. `update` moves the prototypes of a batch's clusters. `swap` is None before its round, `text` in stage
    `prepare`.

    Source: Chen et al., ACM MM 2023; released code, stages 0 and 2. Differs: memories change after the optimiser, by
    name, not inside `backward`.
    """
    device = memories.visible.prototypes.device
    terms = [
        *(own_contrast(modality, memory, labels[modality], temperature) for modality, memory in memories.items()),
        *(() if text is None else (text_term(modality, text, device) for modality in Modality)),
        *extra_terms,
    ]
    return Objective(tuple(terms), MemoryUpdates(labels, memories, update, swap))


def own_contrast(
    modality: Modality, memory: PrototypeMemory, labels: Int64[np.ndarray, " n"], temperature: float
) -> Term:
    """Contrast of a modality's images with the prototypes of that modality after the last step."""
    own = upload(labels, memory.prototypes.device)

    def loss(batch: Batch) -> Tensor:
        logits = memory.logits(batch.once(unit_necks)[modality], temperature)
        return prototype_contrast(logits, own[batch.positions[modality]])

    return Term(f"{modality}_prototype", 1.0, frozenset({Head.NECK}), loss)


def text_term(modality: Modality, text: TextLoss, device: torch.device) -> Term:
    """Classification of a modality's images by its text prototypes; images without one are excluded."""
    prototypes = text.prototypes[modality]
    largest, known = prototypes.labels.max(initial=-1), len(prototypes.features)
    if largest >= known:
        raise ValueError(f"label {largest} has no text: there are {known}")
    own = upload(prototypes.labels, device)

    def loss(batch: Batch) -> Tensor:
        logits = batch.rows(Head.PROJECTION)[modality] @ prototypes.features.T
        return text_classification(logits, own[batch.positions[modality]], text.smoothing)

    return Term(f"{modality}_text", text.weight, frozenset({Head.PROJECTION}), loss)


def unit_necks(batch: Batch) -> PerModality[Float[Tensor, "rows dim"]]:
    """Neck features of length 1, for the losses and updates of memories; use with `batch.once`."""
    return batch.rows(Head.NECK).map(normalise_rows)


@dataclass(frozen=True, slots=True, eq=False)
class MemoryUpdates:
    """Move the memories towards each batch, then swap matched prototypes."""

    labels: PerModality[Int64[np.ndarray, " n"]]
    memories: PerModality[PrototypeMemory]
    update: MemoryUpdate
    swap: CrossModalSwap | None

    def settle(self) -> None:
        """Complete the swap of the last step."""
        if self.swap is not None:
            self.swap.settle()

    def after_step(self, batch: Batch) -> None:
        """Update the memories with the features of the step's losses, and begin to swap."""
        labels = self.labels.map_with(lambda own, at: torch.from_numpy(own[at]), batch.host_positions)
        self.memories.map_with(lambda memory, f, y: memory.update(f, y, self.update), batch.once(unit_necks), labels)
        if self.swap is not None:
            self.swap.prepare(self.memories, labels)
