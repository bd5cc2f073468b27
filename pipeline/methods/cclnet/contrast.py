"""Contrast of images with cluster memories: their own modality's, or those of both modalities."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from scipy.sparse import csr_array
from torch import Tensor

from clustering.partners import NO_PARTNER, Pairs, confidence
from models.encoder import Head
from models.losses import cross_contrast, prototype_contrast, share_contrast, unified_contrast
from models.memory import PrototypeMemory
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from models.transfer import upload
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.targets import Targets, hard_targets
from pipeline.training.objective import Batch, Term


@dataclass(frozen=True, slots=True, eq=False)
class Partners:
    """Of each cluster of a modality: its partner in the other one, or -1, and clusters that may be the same person.

    `confidence` weighs the pair, in [0, 1]. `excluded` are no negatives: clusters that share a pair's cluster with it,
    others that have it as their partner, and without a partner the most similar cluster of the other modality. They
    are columns of both memories, its own first; -1 is padding.
    """

    partner: Int64[np.ndarray, " clusters"]
    confidence: Float32[np.ndarray, " clusters"]
    excluded: Int64[np.ndarray, "clusters left"]


@dataclass(frozen=True, slots=True, eq=False)
class CrossModal:
    """Contrast across modalities in a round: the values of section `loss`."""

    partners: PerModality[Partners]
    form: Literal["cross", "unified"]
    weight: float = 0.25
    distillation: float = 0.0


@dataclass(frozen=True, slots=True)
class HardPrototypes:
    """Second memories, of the hardest images; see `memory.hard`."""

    memories: PerModality[PrototypeMemory]
    momentum: float
    margin: float


def partners_of(clusters: Clusters, temperature: float, *, weighted: bool) -> PerModality[Partners]:
    """The partners of a round's clusters; `weighted` takes confidences from the margins of similarity."""
    similarity, partners = clusters.similarity, clusters.partners
    visible, infrared = partners.pairs()
    certain = np.ones(len(visible), np.float32)
    if weighted:
        certain = confidence(similarity, (visible, infrared), temperature=temperature)
    return PerModality(
        _partners(similarity, partners.of_visible, (visible, infrared), certain),
        _partners(similarity.T, partners.of_infrared, (infrared, visible), certain),
    )


def own_contrast(
    modality: Modality,
    memory: PrototypeMemory,
    labels: Int64[np.ndarray, " n"],
    temperature: float,
    targets: Targets | None = None,
) -> Term:
    """Contrast of a modality's images with the prototypes of that modality after the last step.

    `targets` are soft ones in place of labels.
    """
    device = memory.prototypes.device
    own = upload(labels, device)
    soft = None if targets is None else (upload(targets.clusters, device), upload(targets.shares, device))

    def loss(batch: Batch) -> Tensor:
        logits, at = memory.logits(batch.once(unit_necks)[modality], temperature), batch.positions[modality]
        return prototype_contrast(logits, own[at]) if soft is None else share_contrast(logits, soft[0][at], soft[1][at])

    return Term(f"{modality}_prototype", 1.0, frozenset({Head.NECK}), loss)


def contrast_term(
    modality: Modality,
    memories: PerModality[PrototypeMemory],
    labels: Int64[np.ndarray, " n"],
    cross_modal: CrossModal,
    temperature: float,
    targets: Targets | None = None,
) -> Term:
    """The contrast of a modality's images with both memories; `targets` are soft ones in place of labels."""
    device, partners = memories.visible.prototypes.device, cross_modal.partners[modality]
    own, other = memories[modality], memories[modality.other]
    within = own_contrast(modality, own, labels, temperature, targets)
    goal = targets or hard_targets(labels)
    clusters, shares = upload(goal.clusters, device), upload(goal.shares, device)
    partner, weight, excluded = (
        upload(of_clusters[labels], device)  # outliers, label -1, are in no batch
        for of_clusters in (partners.partner, partners.confidence, partners.excluded)
    )

    def unified(batch: Batch) -> Tensor:
        at, features = batch.positions[modality], batch.once(unit_necks)[modality]
        logits = own.logits(features, temperature), other.logits(features, temperature)
        return unified_contrast(*logits, clusters[at], shares[at], partner[at], weight[at], excluded[at])

    def cross(batch: Batch) -> Tensor:
        at, features = batch.positions[modality], batch.once(unit_necks)[modality]
        weights = shares[at].sum(dim=1) * weight[at]
        across = cross_contrast(other.logits(features, temperature), partner[at], weights)
        return within.loss(batch) + cross_modal.weight * across

    loss = unified if cross_modal.form == "unified" else cross
    return Term(f"{modality}_{cross_modal.form}", 1.0, frozenset({Head.NECK}), loss)


def with_hardest(
    term: Term,
    modality: Modality,
    hard: HardPrototypes,
    labels: Int64[np.ndarray, " n"],
    temperature: float,
    targets: Targets | None = None,
) -> Term:
    """Half of what `term` exceeds the margin by, and half of the contrast with the hardest images' prototypes.

    Source: PCLHD, NeurIPS 2024, released code, first stage.
    """
    other = own_contrast(modality, hard.memories[modality], labels, temperature, targets)

    def loss(batch: Batch) -> Tensor:
        return 0.5 * (torch.relu(term.loss(batch) - hard.margin) + other.loss(batch))

    return Term(term.name, term.weight, term.heads, loss)


def distillation_term(memories: PerModality[PrototypeMemory], weight: float, temperature: float) -> Term:
    """Divergence of each view of a visible image from the other, over the prototypes of both modalities.

    The other view is the teacher: its temperature is half as large, and it has no gradient.

    Source: PoSeD, ACM MM 2026, self-distillation from prototypes. Differs: visible images only; values are ours.
    """

    def loss(batch: Batch) -> Tensor:
        first, second = batch.split(batch.once(unit_necks)).visible
        bank = torch.cat([memory.prototypes for memory in memories]).T / temperature

        def divergence(student: Tensor, teacher: Tensor) -> Tensor:
            target = torch.log_softmax(2.0 * (teacher.detach() @ bank), dim=1)
            scores = torch.log_softmax(student @ bank, dim=1)
            return torch.nn.functional.kl_div(scores, target, reduction="batchmean", log_target=True)

        return 0.5 * (divergence(first, second) + divergence(second, first))

    return Term("distillation", weight, frozenset({Head.NECK}), loss)


def unit_necks(batch: Batch) -> PerModality[Float[Tensor, "rows dim"]]:
    """Neck features of length 1, for the losses and updates of memories; use with `batch.once`."""
    return batch.rows(Head.NECK).map(normalise_rows)


def _partners(
    similarity: Float32[np.ndarray, "own others"],
    partner: Int64[np.ndarray, " own"],
    pairs: Pairs,
    certain: Float32[np.ndarray, " pairs"],
) -> Partners:
    """`pairs` are all pairs, its own modality first, and `certain` are their confidences."""
    own, there = pairs
    mine = partner[own] == there
    weight = np.zeros(len(partner), np.float32)
    weight[own[mine]] = certain[mine]
    edges = csr_array((np.ones(len(own)), (own, there)), shape=similarity.shape)
    sharing = (edges @ edges.T).tocoo()
    apart = sharing.row != sharing.col
    alone = np.flatnonzero(partner == NO_PARTNER)
    rows = np.concatenate([sharing.row[apart], own[~mine], alone])
    others = np.concatenate([there[~mine], similarity[alone].argmax(axis=1)])
    columns = np.concatenate([sharing.col[apart], len(partner) + others])
    return Partners(partner, weight, _listed(len(partner), rows, columns))


def _listed(num_rows: int, rows: Int[np.ndarray, " n"], values: Int[np.ndarray, " n"]) -> Int64[np.ndarray, "rows _"]:
    """The values of each row in a table as wide as the longest row, padded with -1."""
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=num_rows)
    table = np.full((num_rows, counts.max(initial=0)), NO_PARTNER)
    table[rows[order], np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = values[order]
    return table
