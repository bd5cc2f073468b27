"""One epoch of EEES: people are classified, and images compared with captions, both alone and with other views."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
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
from models.encoder import Encoded, Head
from models.fusion import PairViewFusion, other_views
from models.losses import prototype_contrast
from models.modality import PerModality
from models.text_tower import TextTower
from pipeline.methods.identity_objective import PersonObjective

Captioned = Callable[[Int64[Tensor, " images"]], Float[Tensor, "images embed"]]
"""From positions of images of one modality to the features of their captions, not normalised."""


@dataclass(frozen=True, slots=True)
class CaptionWeights:
    """What each term on captions weighs, and its form; a weight of 0 removes it."""

    alignment_weight: float
    alignment_target: Literal["identity", "instance"]
    alignment_similarity: Literal["cosine", "raw"]
    temperature: float
    alignment_feature: Literal["projection", "pooled"]
    views_weight: float
    distillation: Literal["both", "feature", "relation", "off"]
    distillation_weight: float
    distillation_detach: bool
    fused_identity: bool
    purification_weight: float
    purification: Literal["msel", "csia", "off"]
    purification_level: Literal["single", "fused"]
    purification_distance: Literal["euclid", "one_minus_cos"]
    purification_detach: Literal["none", "intra"]

    @property
    def purifies(self) -> bool:
        """Whether distances of images to captions are compared between the modalities."""
        return self.purification != "off" and self.purification_weight > 0

    @property
    def fuses(self) -> bool:
        """Whether any term needs fused views."""
        return self.views_weight > 0 or (self.purifies and self.purification_level == "fused")

    @property
    def reads_captions(self) -> bool:
        """Whether any term needs captions."""
        return self.alignment_weight > 0 or self.purifies or self.fuses


@dataclass(frozen=True, slots=True)
class CaptionedImages:
    """First visible views and infrared images of a step, and the caption of each."""

    images: PerModality[Float[Tensor, "images embed"]]
    texts: PerModality[Float[Tensor, "images embed"]]


@dataclass(frozen=True, slots=True, eq=False)
class CaptionObjective:
    """What `people` minimises, and terms on captions: alignment, views, distillation and purification.

    Captions stand beside first visible views and infrared images only: second views lose their colours on purpose.

    Args:
        people: Identity, gap and triplet; it has no texts.
        captions: Of the images of either modality.
        positions: Which image each row of a step shows; those of first visible views, and of infrared images.
        images_per_person: How many images of a person stand together.
        fusion: Fuses views, in training mode; None where no term needs it.
        fused_neck: From fused images to what the classifier of projections reads; None where no term needs it.
            `normalised_by_batch` makes one.
        pooled_map: From pooled features to the width of captions; None where projections meet the captions.
        weights: Of the terms.

    Source: reconstructed from the abstract of Dong et al., 2024 (EEES), and from sibling papers.
    """

    people: PersonObjective
    captions: PerModality[Captioned]
    positions: PerModality[Int64[Tensor, "steps images"]]
    images_per_person: int
    fusion: PairViewFusion | None
    fused_neck: Callable[[Float[Tensor, "rows embed"]], Float[Tensor, "rows embed"]] | None
    pooled_map: nn.Module | None
    weights: CaptionWeights

    @property
    def heads(self) -> frozenset[Head]:
        """Those of the terms on people, which are all."""
        return self.people.heads

    def terms(self, encoded: PerModality[Encoded], step: int) -> dict[str, Float[Tensor, ""]]:
        """The weighted losses of a step."""
        weights = self.weights
        terms = self.people.terms(encoded, step)
        if not weights.reads_captions:
            return terms
        labels = self.people.labels[step]
        alone = CaptionedImages(
            encoded.map(lambda one: self._images(one, len(labels))),
            self.captions.map_with(lambda captioned, at: captioned(at[step]), self.positions),
        )
        if weights.alignment_weight > 0:
            loss = self._contrast(alone, labels, weights.alignment_target)
            terms["alignment"] = weights.alignment_weight * loss
        fused = self._fused(alone, step) if weights.fuses else alone
        if weights.views_weight > 0:
            terms |= self._view_terms(alone, fused, labels, step)
        if weights.purifies:
            pairs = fused if weights.purification_level == "fused" else alone
            terms["purification"] = weights.purification_weight * self._purification(pairs, labels)
        return terms

    def after_step(self, step: int) -> None:
        """Nothing remembers."""

    def finish(self) -> None:
        """Nothing is left."""

    def _images(self, encoded: Encoded, num_images: int) -> Tensor:
        """The features that meet captions; of visible images, those of the first views."""
        if self.weights.alignment_feature == "projection":
            assert encoded.projection is not None
            return encoded.projection[:num_images]
        assert encoded.pooled is not None and self.pooled_map is not None
        mapped: Tensor = self.pooled_map(encoded.pooled[:num_images])
        return mapped

    def _contrast(self, pairs: CaptionedImages, labels: Tensor, target: Literal["identity", "instance"]) -> Tensor:
        return caption_contrast(
            pairs.images,
            pairs.texts,
            labels,
            temperature=self.weights.temperature,
            similarity=self.weights.alignment_similarity,
            target=target,
        )

    def _fused(self, alone: CaptionedImages, step: int) -> CaptionedImages:
        assert self.fusion is not None
        fusion = self.fusion
        pairs = alone.images.map_with(
            lambda images, texts, at: fusion(images, texts, at[step], self.images_per_person),
            alone.texts,
            self.positions,
        )
        return CaptionedImages(pairs.map(lambda pair: pair[0]), pairs.map(lambda pair: pair[1]))

    def _view_terms(
        self, alone: CaptionedImages, fused: CaptionedImages, labels: Tensor, step: int
    ) -> dict[str, Tensor]:
        weight = self.weights.views_weight
        terms = {"views": weight * self._contrast(fused, labels, "identity")}
        if self.weights.distillation != "off" and self.weights.distillation_weight > 0:
            loss = self._distillation(alone, fused, step)
            terms["distillation"] = weight * self.weights.distillation_weight * loss
        if self.weights.fused_identity:
            assert self.fused_neck is not None and self.people.classifier.projection is not None
            scores = self.people.classifier.projection(self.fused_neck(torch.cat([*fused.images])))
            terms["fused_identity"] = weight * prototype_contrast(scores, labels.repeat(2))
        return terms

    def _distillation(self, alone: CaptionedImages, fused: CaptionedImages, step: int) -> Tensor:
        kind, detach = self.weights.distillation, self.weights.distillation_detach
        losses: list[Tensor] = []
        if kind in ("both", "feature"):
            losses += alone.images.map_with(
                lambda student, teacher: feature_distillation(student, teacher, detach=detach), fused.images
            )
        if kind in ("both", "relation"):
            relations = [pairs.images.map_with(cosine_similarities, pairs.texts) for pairs in (alone, fused)]
            losses += relations[0].map_with(
                lambda student, teacher, taught: relation_distillation(student, teacher, taught, detach=detach),
                relations[1],
                self.positions.map(lambda at: self._taught(at[step])),
            )
        return torch.stack(losses).sum()

    def _taught(self, positions: Tensor) -> Bool[Tensor, " images"]:
        return other_views(positions, self.images_per_person).any(dim=1)

    def _purification(self, pairs: CaptionedImages, labels: Tensor) -> Tensor:
        weights = self.weights
        if weights.purification == "csia":
            return caption_association(pairs.images, pairs.texts, self.images_per_person)
        return caption_gap(
            pairs.images,
            pairs.texts,
            labels,
            distance=weights.purification_distance,
            detach=weights.purification_detach,
        )


def fixed_captions(features: Float[Tensor, "images embed"]) -> Captioned:
    """Captions that a frozen tower encoded before the epoch, on the device."""
    return lambda positions: features[positions]


def learned_captions(tower: TextTower, ids: Int64[Tensor, "images longest"]) -> Captioned:
    """Captions that are encoded in each step by a tower whose weights are learned.

    All run as far as the end of the longest caption of all: to know that of a step, a GPU would have to be waited for.

    Args:
        tower: On the device; its weights decide who gets gradients.
        ids: Token numbers of the caption of every image, as `TextTower.cut` returns them.
    """
    return lambda positions: tower.from_cut_tokens(ids[positions])


def normalised_by_batch(neck: nn.Module) -> Callable[[Float[Tensor, "rows embed"]], Float[Tensor, "rows embed"]]:
    """A neck for fused images: scale and bias of another one, and statistics of the rows themselves.

    The running statistics are those of single images, by which they are searched: fused ones must not move them. Every
    process has all fused rows, so that there is nothing to synchronise.

    Args:
        neck: The encoder's projection neck, a batch norm.
    """
    assert isinstance(neck, _BatchNorm)
    return lambda rows: batch_norm(rows, None, None, neck.weight, neck.bias, training=True, eps=neck.eps)
