"""One epoch of CSDN's image stage: people are classified, and images compared with each other and with fused texts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.encoder import Encoded, Head
from models.losses import prototype_contrast, text_classification
from models.metric_losses import modality_gap, weighted_triplet
from models.modality import Modality, PerModality
from models.person_heads import PersonClassifier
from pipeline.data.transforms.augmentation import Normalisation
from pipeline.data.transforms.channel_augmentation import View, augment_channels
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.training.loop import Augmentation


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each term of the image stage weighs; 0 removes it."""

    gap_weight: float
    triplet_weight: float
    triplet_softmax: Literal["released", "stable"]
    visible_text_weight: float
    infrared_text_weight: float
    text_on_second_view: bool


@dataclass(frozen=True, slots=True, eq=False)
class PersonObjective:
    """Identity, triplet, gap between the modalities, and texts.

    A batch shows the same people in both modalities, and visible images twice: their first views, then their second.

    Args:
        classifier: Of the people, in training mode.
        texts: One a person, for images of each modality; None where no term uses them.
        labels: Whom each infrared image of a step shows; each visible view shows the same people in the same order.
        weights: Of the terms.

    Source: Yu et al., IEEE TMM 2025 (CSDN), high-level semantic embedding; public code, stage 3.
    """

    classifier: PersonClassifier
    texts: PerModality[Float[Tensor, "people embed"]] | None
    labels: Int64[Tensor, "steps images"]
    weights: LossWeights

    @property
    def heads(self) -> frozenset[Head]:
        """All that the encoder has: classifiers read the necks, the other terms what comes before."""
        if self.classifier.projection is None:
            return frozenset({Head.POOLED, Head.NECK})
        return frozenset(Head)

    def terms(self, encoded: PerModality[Encoded], step: int) -> dict[str, Float[Tensor, ""]]:
        """The weighted losses of a step."""
        labels, weights = self.labels[step], self.weights
        everyone = labels.repeat(3)
        features = {head: torch.cat([_present(getattr(one, head)) for one in encoded]) for head in sorted(self.heads)}
        compared = [features[head] for head in (Head.POOLED, Head.PROJECTION) if head in features]
        scores = self.classifier(features[Head.NECK], features.get(Head.PROJECTION_NECK))
        terms = {"identity": _sum(prototype_contrast(some, everyone) for some in scores)}
        if weights.triplet_weight > 0:
            triplets = (weighted_triplet(some, everyone, weights.triplet_softmax) for some in compared)
            terms["triplet"] = weights.triplet_weight * _sum(triplets)
        if weights.gap_weight > 0:
            terms["gap"] = weights.gap_weight * _sum(self._gap(some, labels) for some in compared)
        return terms | self._text_terms(features.get(Head.PROJECTION), labels)

    def after_step(self, step: int) -> None:
        """Nothing remembers."""

    def finish(self) -> None:
        """Nothing is left."""

    def _gap(self, features: Tensor, labels: Tensor) -> Tensor:
        first, _, infrared = features.split(len(labels))
        return modality_gap(first, infrared, labels, labels)

    def _text_terms(self, projection: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        if self.texts is None or projection is None:
            return {}
        texts = self.texts
        first, second, infrared = projection.split(len(labels))
        terms = {}
        if self.weights.visible_text_weight > 0:
            views = (first, second) if self.weights.text_on_second_view else (first,)
            losses = [text_classification(view @ texts.visible.T, labels, 0.0) for view in views]
            terms["visible_text"] = self.weights.visible_text_weight * torch.stack(losses).sum()
        if self.weights.infrared_text_weight > 0:
            loss = text_classification(infrared @ texts.infrared.T, labels, 0.0)
            terms["infrared_text"] = self.weights.infrared_text_weight * loss
        return terms


def build_view_augmentation(
    *,
    recipe: Literal["channels", "plain"],
    padding: int,
    normalisation: Normalisation,
    generator: torch.Generator,
    processes: Processes = ALONE,
) -> Augmentation:
    """Bind the settings and the generator of an epoch's random changes; visible batches hold first and second views.

    The views of a batch are drawn for all of it, first views before second ones; a process changes its own share. With
    recipe `plain` every image is moved and erased as a first view is, and keeps its channels.
    """
    second_view: View = "visible_two" if recipe == "channels" else "visible_one"
    infrared_view: View = "infrared" if recipe == "channels" else "visible_one"

    def change(pixels: Tensor, modality: Modality, num_images: int) -> Tensor:
        share = processes.share(num_images)
        if modality is Modality.INFRARED:
            return augment_channels(
                pixels, infrared_view, padding=padding, normalisation=normalisation, generator=generator,
                num_images=num_images, share=share,
            )  # fmt: skip
        half = num_images // 2
        views = []
        starts: tuple[tuple[View, int], ...] = (("visible_one", 0), (second_view, half))
        for view, start in starts:
            own = slice(max(share.start, start), max(max(share.start, start), min(share.stop, start + half)))
            views.append(
                augment_channels(
                    pixels[own.start - share.start : own.stop - share.start],
                    view,
                    padding=padding,
                    normalisation=normalisation,
                    generator=generator,
                    num_images=half,
                    share=slice(own.start - start, own.stop - start),
                )
            )
        return torch.cat(views)

    return change


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


def _present(features: Tensor | None) -> Tensor:
    assert features is not None
    return features
