"""Losses of EEES beside the classification of people: images are compared with captions, alone and fused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from models.caption_losses import (
    caption_association,
    caption_contrast,
    caption_gap,
    cosine_similarities,
    feature_distillation,
    relation_distillation,
)
from models.encoder import Head
from models.fusion import PairViewFusion, other_views
from models.losses import prototype_contrast
from models.modality import PerModality
from models.person_heads import PersonClassifier
from models.text_tower import TextTower
from pipeline.config.eees import CaptionTermsConfig
from pipeline.methods.supervised import People
from pipeline.training.objective import Batch, Term

Captioned = Callable[[Int64[Tensor, " images"]], Float[Tensor, "images embed"]]
"""From positions of images of one modality to the features of their captions, not normalised."""


def purifies(terms: CaptionTermsConfig) -> bool:
    """Whether distances of images to captions are compared between the modalities."""
    return terms.purification != "off" and terms.purification_weight > 0


def fuses(terms: CaptionTermsConfig) -> bool:
    """Whether any term needs fused views."""
    return terms.views_weight > 0 or (purifies(terms) and terms.purification_level == "fused")


def reads_captions(terms: CaptionTermsConfig) -> bool:
    """Whether any term needs captions."""
    return terms.alignment_weight > 0 or purifies(terms) or fuses(terms)


@dataclass(frozen=True, slots=True)
class CaptionedImages:
    """Features of images and of their captions: first visible views and infrared images of a step."""

    images: PerModality[Float[Tensor, "images embed"]]
    texts: PerModality[Float[Tensor, "images embed"]]


@dataclass(frozen=True, slots=True, eq=False)
class CaptionLosses:
    """The losses on captions: alignment, views, distillation, identity of fused views, and purification.

    Captions are paired with first visible views and infrared images only: second views lose their colours on purpose.
    `classifier` and `fusion` are in training mode. `fused_neck` maps fused images to the input of the projections'
    classifier (`normalised_by_batch`), `pooled_map` pooled features to the width of captions; None if no term needs
    them. Each person has `images_per_person` adjacent images.

    Source: reconstructed from the abstract of Dong et al., 2024 (EEES), and from sibling papers.
    """

    people: People
    classifier: PersonClassifier
    captions: PerModality[Captioned]
    images_per_person: int
    fusion: PairViewFusion | None
    fused_neck: Callable[[Float[Tensor, "rows embed"]], Float[Tensor, "rows embed"]] | None
    pooled_map: nn.Module | None
    weights: CaptionTermsConfig

    def terms(self) -> list[Term]:
        """All terms; a weight of 0 removes one."""
        weights = self.weights
        distilled = weights.views_weight * weights.distillation_weight
        head = Head.PROJECTION if weights.alignment_feature == "projection" else Head.POOLED
        losses = (
            ("alignment", weights.alignment_weight, self._alignment),
            ("views", weights.views_weight, self._views),
            ("distillation", 0.0 if weights.distillation == "off" else distilled, self._distillation),
            ("fused_identity", weights.views_weight if weights.fused_identity else 0.0, self._fused_identity),
            ("purification", weights.purification_weight if purifies(weights) else 0.0, self._purification),
        )
        return [Term(name, weight, frozenset({head}), loss) for name, weight, loss in losses]

    def _alignment(self, batch: Batch) -> Tensor:
        return self._contrast(batch, batch.once(self._single), self.weights.alignment_target)

    def _views(self, batch: Batch) -> Tensor:
        return self._contrast(batch, batch.once(self._fused), "identity")

    def _contrast(self, batch: Batch, pairs: CaptionedImages, target: Literal["identity", "instance"]) -> Tensor:
        return caption_contrast(
            pairs.images,
            pairs.texts,
            self._labels(batch).infrared,
            temperature=self.weights.temperature,
            similarity=self.weights.alignment_similarity,
            target=target,
        )

    def _distillation(self, batch: Batch) -> Tensor:
        kind, detach = self.weights.distillation, self.weights.distillation_detach
        single, fused = batch.once(self._single), batch.once(self._fused)
        losses: list[Tensor] = []
        if kind in ("both", "feature"):
            losses += single.images.map_with(
                lambda student, teacher: feature_distillation(student, teacher, detach=detach), fused.images
            )
        if kind in ("both", "relation"):
            relations = [pairs.images.map_with(cosine_similarities, pairs.texts) for pairs in (single, fused)]
            losses += relations[0].map_with(
                lambda student, teacher, taught: relation_distillation(student, teacher, taught, detach=detach),
                relations[1],
                batch.first(batch.positions).map(lambda at: other_views(at, self.images_per_person).any(dim=1)),
            )
        return torch.stack(losses).sum()

    def _fused_identity(self, batch: Batch) -> Tensor:
        assert self.fused_neck is not None and self.classifier.projection is not None
        scores = self.classifier.projection(self.fused_neck(torch.cat([*batch.once(self._fused).images])))
        return prototype_contrast(scores, torch.cat([*self._labels(batch)]))

    def _purification(self, batch: Batch) -> Tensor:
        weights = self.weights
        pairs = batch.once(self._fused if weights.purification_level == "fused" else self._single)
        if weights.purification == "csia":
            return caption_association(pairs.images, pairs.texts, self.images_per_person)
        return caption_gap(
            pairs.images,
            pairs.texts,
            self._labels(batch).infrared,
            distance=weights.purification_distance,
            detach=weights.purification_detach,
        )

    def _labels(self, batch: Batch) -> PerModality[Int64[Tensor, " images"]]:
        """Equal in both modalities: a batch has the same people in the same order."""
        return batch.first(batch.values(self.people))

    def _single(self, batch: Batch) -> CaptionedImages:
        if self.weights.alignment_feature == "projection":
            images = batch.first(batch.rows(Head.PROJECTION))
        else:
            assert self.pooled_map is not None
            images = batch.first(batch.rows(Head.POOLED)).map(self.pooled_map)
        texts = self.captions.map_with(lambda captioned, at: captioned(at), batch.first(batch.positions))
        return CaptionedImages(images, texts)

    def _fused(self, batch: Batch) -> CaptionedImages:
        assert self.fusion is not None
        fusion, single = self.fusion, batch.once(self._single)
        pairs = single.images.map_with(
            lambda images, texts, at: fusion(images, texts, at, self.images_per_person),
            single.texts,
            batch.first(batch.positions),
        )
        return CaptionedImages(pairs.map(lambda pair: pair[0]), pairs.map(lambda pair: pair[1]))


def fixed_captions(features: Float[Tensor, "images embed"]) -> Captioned:
    """Captions encoded by a frozen tower before the epoch, on the device."""
    return lambda positions: features[positions]


def learned_captions(tower: TextTower, ids: Int64[Tensor, "images longest"]) -> Captioned:
    """Captions encoded in each step by a trained tower on the device; `ids` are tokens as `TextTower.cut` returns them.

    Every step encodes up to the end of the longest caption of all images, which needs no wait for the GPU.
    """
    return lambda positions: tower.from_cut_tokens(ids[positions])


def normalised_by_batch(neck: nn.Module) -> Callable[[Float[Tensor, "rows embed"]], Float[Tensor, "rows embed"]]:
    """A neck for fused images: scale and bias of the encoder's projection neck, statistics of the rows themselves.

    Its running statistics, which searches use, stay those of single images.
    """
    assert isinstance(neck, _BatchNorm)
    return lambda rows: batch_norm(rows, None, None, neck.weight, neck.bias, training=True, eps=neck.eps)
