"""Batches of an epoch as positions in the label vectors, drawn before the epoch begins.

An epoch's batches are a value: iterating twice gives the same ones, and nothing during the epoch changes them.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Int64

from models.modality import Modality, PerModality
from pipeline.errors import DegenerateClustering

Replacement = Literal["always", "when_short"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CrossModalBatches:
    """The batches of one epoch: P clusters (or people) of each modality, and K adjacent images of each."""

    positions: PerModality[Int64[np.ndarray, "steps batch"]]
    clusters_per_batch: PerModality[int]

    def __len__(self) -> int:
        return len(self.positions.visible)

    def __iter__(self) -> Iterator[PerModality[Int64[np.ndarray, " batch"]]]:
        for visible, infrared in zip(self.positions.visible, self.positions.infrared, strict=True):
            yield PerModality(visible, infrared)


@dataclass(frozen=True, slots=True)
class PairedBatches:
    """Batches of two independent image lists; the last one may be smaller, never empty."""

    positions: PerModality[Int64[np.ndarray, " n"]]
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(len(self.positions.visible) / self.batch_size)

    def __iter__(self) -> Iterator[PerModality[Int64[np.ndarray, " batch"]]]:
        for start in range(0, len(self.positions.visible), self.batch_size):
            step = slice(start, start + self.batch_size)
            yield PerModality(self.positions.visible[step], self.positions.infrared[step])


def cross_modal_batches(
    labels: PerModality[Int[np.ndarray, " n"]],
    *,
    clusters_per_batch: int,
    images_per_cluster: int,
    replacement: Replacement = "always",
    generator: np.random.Generator,
) -> CrossModalBatches:
    """Draw an epoch of batches: P clusters of each modality, without replacement within a batch, and K images of each.

    Fewer than P clusters in a modality: all of them, in every batch, logged once. Fewer than K images in a cluster:
    drawn with replacement; with `replacement="always"`, all are. Outliers (-1) are never drawn. There are `max(labelled
    images of a modality) // (P K) + 1` batches, none smaller, for the requested P and K; the generator draws visible
    batches first.

    Raises:
        DegenerateClustering: All images of a modality are outliers.

    Source: Chen et al., ACM MM 2023 (CCLNet); public code, sampler of the image stages. Differs: fewer clusters than P
    is not an error.
    """
    clusters = labels.map(sort_by_label)
    for modality, one in clusters.items():
        if len(one.images) == 0:
            raise _nothing_labelled(len(labels[modality]), modality)
    longer = max(len(one.images) for one in clusters)
    num_steps = longer // (clusters_per_batch * images_per_cluster) + 1
    shown = clusters.map(lambda one: min(clusters_per_batch, len(one.counts)))
    for modality, num_shown in shown.items():
        if num_shown < clusters_per_batch:
            logger.info("batches contain all %d %s clusters, not %d", num_shown, modality, clusters_per_batch)

    def draw(one: ImagesByLabel, num_shown: int) -> Int64[np.ndarray, " batch"]:
        chosen = generator.choice(len(one.counts), size=num_shown, replace=False)
        return draw_images(one, chosen, images_per_cluster, replacement, generator)

    positions = clusters.map_with(
        lambda one, num_shown: np.stack([draw(one, num_shown) for _ in range(num_steps)]), shown
    )
    return CrossModalBatches(positions, shown)


def paired_batches(counts: PerModality[int], batch_size: int, generator: np.random.Generator) -> PairedBatches:
    """Iterate over two image lists in parallel until the longer one is exhausted.

    The longer list occurs in random order, each image once; the shorter one likewise, followed by uniform draws with
    replacement.

    Source: Chen et al., ACM MM 2023 (CCLNet); public code, prompt learning. Differs: a list that is a multiple of the
    batch long has no empty last batch.
    """
    for modality, count in counts.items():
        if count == 0:
            raise _nothing_labelled(0, modality)
    longest = max(counts)

    def order(count: int) -> Int64[np.ndarray, " n"]:
        return np.concatenate([generator.permutation(count), generator.integers(0, count, size=longest - count)])

    return PairedBatches(counts.map(order), batch_size)


@dataclass(frozen=True, slots=True)
class ImagesByLabel:
    """Labelled images sorted by label: those of the c-th label are `images[starts[c] : starts[c] + counts[c]]`."""

    images: Int64[np.ndarray, " labelled"]
    starts: Int64[np.ndarray, " clusters"]
    counts: Int64[np.ndarray, " clusters"]


def sort_by_label(labels: Int[np.ndarray, " n"]) -> ImagesByLabel:
    """Sort images by label, stably; images with a negative label are excluded."""
    images = np.flatnonzero(labels >= 0)
    images = images[np.argsort(labels[images], kind="stable")]
    _, starts, counts = np.unique(labels[images], return_index=True, return_counts=True)
    return ImagesByLabel(images, starts, counts)


def draw_images(
    clusters: ImagesByLabel,
    chosen: Int64[np.ndarray, " chosen"],
    num_images: int,
    replacement: Replacement,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " batch"]:
    """Draw `num_images` images of each chosen label, adjacent; `chosen` indexes the labels that occur."""
    starts, counts = clusters.starts[chosen], clusters.counts[chosen]
    # With replacement for all; clusters that must not repeat are then overwritten.
    offsets = generator.integers(0, counts[:, None], size=(len(chosen), num_images))
    if replacement == "when_short":
        enough = np.flatnonzero(counts >= num_images)
        offsets[enough] = _draw_without_repetition(counts[enough], num_images, generator)
    positions: Int64[np.ndarray, " batch"] = clusters.images[(starts[:, None] + offsets).ravel()]
    return positions


def _draw_without_repetition(
    counts: Int64[np.ndarray, " rows"], num_drawn: int, generator: np.random.Generator
) -> Int64[np.ndarray, "rows drawn"]:
    """Distinct numbers below each row's count: the places of the smallest of as many random keys."""
    keys = generator.random((len(counts), max(counts, default=num_drawn)))
    keys[np.arange(keys.shape[1]) >= counts[:, None]] = np.inf
    return np.argsort(keys, axis=1)[:, :num_drawn]


def _nothing_labelled(num_images: int, modality: Modality) -> DegenerateClustering:
    return DegenerateClustering(
        f"none of the {num_images} {modality} images belongs to a cluster: no batch can be drawn",
        hint=f"raise labelling.{modality}.eps, or lower labelling.{modality}.min_samples",
    )


def paired_identity_batches(
    person_ids: PerModality[Int[np.ndarray, " n"]],
    *,
    people_per_batch: int,
    images_per_person: int,
    replacement: Replacement,
    generator: np.random.Generator,
) -> CrossModalBatches:
    """Draw an epoch of batches: P people, each once in a batch, and I images of each from either modality.

    People with images of one modality only, or a negative number, are excluded. Otherwise as `cross_modal_batches`; the
    generator draws, for each batch, the people, then visible, then infrared images. People have the same order in both
    modalities: the k-th visible image and the k-th infrared image show the same person.

    Source: nengdong96/CSDN, public code, sampler of all stages. Differs: fewer people than P is not an error.
    """
    present = person_ids.map(lambda ids: np.unique(ids[ids >= 0]))
    both = np.intersect1d(present.visible, present.infrared, assume_unique=True)
    assert len(both) >= 2, "person_labels refuses fewer than two persons"
    num_people = min(people_per_batch, len(both))
    if num_people < people_per_batch:
        logger.info("batches contain all %d persons, not %d", num_people, people_per_batch)
    people = person_ids.map(lambda ids: sort_by_label(np.where(np.isin(ids, both), ids, -1)))
    num_steps = max(len(one.images) for one in people) // (people_per_batch * images_per_person) + 1

    def step() -> PerModality[Int64[np.ndarray, " batch"]]:
        # The same people are in both values, so a number is the same person in both.
        chosen = generator.choice(len(both), size=num_people, replace=False)
        return people.map(lambda one: draw_images(one, chosen, images_per_person, replacement, generator))

    steps = [step() for _ in range(num_steps)]
    positions = PerModality.build(lambda modality: np.stack([one[modality] for one in steps]))
    return CrossModalBatches(positions, PerModality(num_people, num_people))
