"""Objective of CCLNet's image stages: contrast with cluster memories, and classification by text prototypes.

The host's part of swapping runs while the next batch is encoded; only the loss of that batch needs the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clustering.partners import NO_PARTNER
from models.encoder import Head
from models.losses import text_classification
from models.memory import MemoryUpdate, PrototypeMemory
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from models.swap import CrossModalSwap
from models.transfer import upload
from pipeline.methods.cclnet.cameras import CameraContrast
from pipeline.methods.cclnet.contrast import (
    CrossModal,
    HardPrototypes,
    contrast_term,
    distillation_term,
    own_contrast,
    unit_necks,
    with_hardest,
)
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.methods.cclnet.targets import Targets
from pipeline.training.objective import Batch, Objective, Term


@dataclass(frozen=True, slots=True)
class TextLoss:
    """Image-to-text classification: text prototypes with the labels they were learned on, and the settings.

    `scale` is the factor of cosine logits, None for inner products; `cross_weight` that of the other modality's texts,
    which count by the confidence of their pairs if `weighted`.
    """

    prototypes: PerModality[TextPrototypes]
    weight: float
    smoothing: float
    scale: float | None = None
    cross_weight: float = 0.0
    weighted: bool = False


def cluster_objective(
    labels: PerModality[Int64[np.ndarray, " n"]],
    memories: PerModality[PrototypeMemory],
    *,
    temperature: float,
    update: MemoryUpdate,
    swap: CrossModalSwap | None = None,
    text: TextLoss | None = None,
    cross_modal: CrossModal | None = None,
    hard: HardPrototypes | None = None,
    targets: PerModality[Targets] | None = None,
    cameras: Sequence[CameraContrast] = (),
    extra_terms: Sequence[Term] = (),
) -> Objective:
    """The terms of one epoch, and the updates of its memories after each step.

    `labels` is the cluster of each training image, -1 for outliers, which are in no batch. The epoch changes
    `memories`. `update` moves the prototypes of a batch's clusters. `swap` is None before its round, `text` in stage
    `prepare`, `cross_modal` in rounds without contrast across modalities. `hard` replaces `update`; the proxies of
    `cameras` follow `update` in any case.

    Source: Chen et al., ACM MM 2023; released code, stages 0 and 2. Differs: memories change after the optimiser, by
    name, not inside `backward`.
    """
    device = memories.visible.prototypes.device

    def contrast(modality: Modality) -> Term:
        own, soft = labels[modality], None if targets is None else targets[modality]
        term = (
            own_contrast(modality, memories[modality], own, temperature, soft)
            if cross_modal is None
            else contrast_term(modality, memories, own, cross_modal, temperature, soft)
        )
        return term if hard is None else with_hardest(term, modality, hard, own, temperature, soft)

    terms = [
        *map(contrast, Modality),
        *(() if cross_modal is None else (distillation_term(memories, cross_modal.distillation, temperature),)),
        *(one.term(temperature) for one in cameras),
        *(() if text is None else (text_term(modality, text, device) for modality in Modality)),
        *(() if text is None else (cross_text_term(modality, text, device) for modality in Modality)),
        *extra_terms,
    ]
    return Objective(tuple(terms), MemoryUpdates(labels, memories, update, swap, hard, cameras))


def text_term(modality: Modality, text: TextLoss, device: torch.device) -> Term:
    """Classification of a modality's images by its text prototypes; images without one are excluded."""
    prototypes = text.prototypes[modality]
    largest, known = prototypes.labels.max(initial=-1), len(prototypes.features)
    if largest >= known:
        raise ValueError(f"label {largest} has no text: there are {known}")
    own = upload(prototypes.labels, device)
    return _text_term(f"{modality}_text", text.weight, modality, prototypes.features, own, text)


def cross_text_term(modality: Modality, text: TextLoss, device: torch.device) -> Term:
    """Classification of a modality's images by the other modality's texts; images of unpaired clusters are excluded.

    Source: ours.
    """
    own, other = text.prototypes[modality], text.prototypes[modality.other]
    partner = upload(np.append(own.partners, NO_PARTNER)[own.labels], device)
    weights = upload(np.append(own.confidence, np.float32(0))[own.labels], device) if text.weighted else None
    return _text_term(f"{modality}_cross_text", text.cross_weight, modality, other.features, partner, text, weights)


def _text_term(
    name: str,
    weight: float,
    modality: Modality,
    texts: Float[Tensor, "texts width"],
    labels: Int64[Tensor, " n"],
    text: TextLoss,
    weights: Float[Tensor, " n"] | None = None,
) -> Term:
    scaled = None if text.scale is None else text.scale * normalise_rows(texts)

    def loss(batch: Batch) -> Tensor:
        images = batch.rows(Head.PROJECTION)[modality]
        logits = images @ texts.T if scaled is None else normalise_rows(images) @ scaled.T
        at = batch.positions[modality]
        return text_classification(logits, labels[at], text.smoothing, None if weights is None else weights[at])

    return Term(name, weight, frozenset({Head.PROJECTION}), loss)


@dataclass(frozen=True, slots=True, eq=False)
class MemoryUpdates:
    """Move the memories towards each batch, then swap matched prototypes."""

    labels: PerModality[Int64[np.ndarray, " n"]]
    memories: PerModality[PrototypeMemory]
    update: MemoryUpdate
    swap: CrossModalSwap | None
    hard: HardPrototypes | None = None
    cameras: Sequence[CameraContrast] = ()

    def settle(self) -> None:
        """Complete the swap of the last step."""
        if self.swap is not None:
            self.swap.settle()

    def after_step(self, batch: Batch) -> None:
        """Update the memories with the features of the step's losses, and begin to swap."""
        labels = self.labels.map_with(lambda own, at: torch.from_numpy(own[at]), batch.host_positions)
        features = batch.once(unit_necks)
        if self.hard is None:
            self.memories.map_with(lambda memory, f, y: memory.update(f, y, self.update), features, labels)
        else:
            move = partial(PrototypeMemory.update_with_hardest, momentum=self.hard.momentum)
            self.memories.map_with(move, self.hard.memories, features, labels)
        for one in self.cameras:
            one.update(batch, self.update)
        if self.swap is not None:
            self.swap.prepare(self.memories, labels)
