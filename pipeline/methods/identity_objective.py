"""Loss terms of the supervised methods: people are classified, and images compared with each other and with texts.

A batch has the same people in both modalities: the k-th infrared image and the k-th image of every visible view are of
one person. All views are classified and enter the triplet; the gap between the modalities reads first views only.

Source: Yu et al., IEEE TMM 2025 (CSDN), high-level semantic embedding; public code, stage 3.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.encoder import Head
from models.losses import prototype_contrast, text_classification
from models.metric_losses import modality_gap, weighted_triplet
from models.modality import Modality, PerModality
from models.person_heads import PersonClassifier
from pipeline.training.objective import Batch, Term

People = PerModality[Int64[Tensor, " n"]]
"""The person of each training image, on the device."""


def person_terms(
    people: People,
    classifier: PersonClassifier,
    *,
    gap_weight: float,
    triplet_weight: float,
    triplet_softmax: Literal["released", "stable"],
) -> list[Term]:
    """Identity, triplet, and the gap between the modalities; a weight of 0 removes a term.

    `classifier` is in training mode and reads the necks; `triplet_softmax` averages the distances of an anchor.
    """
    projects = classifier.projection is not None
    necks = (Head.NECK, Head.PROJECTION_NECK) if projects else (Head.NECK,)
    compared = (Head.POOLED, Head.PROJECTION) if projects else (Head.POOLED,)

    def everyone(batch: Batch) -> Tensor:
        return torch.cat([*batch.values(people)])

    def identity(batch: Batch) -> Tensor:
        labels, features = batch.once(everyone), [batch.all_rows(head) for head in necks]
        scores = classifier(features[0], features[1] if projects else None)
        return _sum(prototype_contrast(some, labels) for some in scores)

    def triplet(batch: Batch) -> Tensor:
        labels, features = batch.once(everyone), [batch.all_rows(head) for head in compared]
        return _sum(weighted_triplet(some, labels, triplet_softmax) for some in features)

    def gap(batch: Batch) -> Tensor:
        labels = batch.first(batch.values(people))
        first = (batch.views(head).map(lambda views: views[0]) for head in compared)
        return _sum(modality_gap(*some, *labels) for some in first)

    return [
        Term("identity", 1.0, frozenset(necks), identity),
        Term("triplet", triplet_weight, frozenset(compared), triplet),
        Term("gap", gap_weight, frozenset(compared), gap),
    ]


def text_terms(
    people: People,
    texts: PerModality[Float[Tensor, "people embed"]],
    *,
    visible_text_weight: float,
    infrared_text_weight: float,
    text_on_second_view: bool,
) -> list[Term]:
    """Classification of images by the text prototypes of people in their modality; a weight of 0 removes a term.

    `text_on_second_view`: further views are classified as well.
    """

    def term(modality: Modality, weight: float) -> Term:
        def loss(batch: Batch) -> Tensor:
            views = batch.views(Head.PROJECTION)[modality]
            chosen = views if text_on_second_view else views[:1]
            labels = batch.first(batch.values(people))[modality]
            return _sum(text_classification(view @ texts[modality].T, labels, 0.0) for view in chosen)

        return Term(f"{modality}_text", weight, frozenset({Head.PROJECTION}), loss)

    return [term(Modality.VISIBLE, visible_text_weight), term(Modality.INFRARED, infrared_text_weight)]


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
