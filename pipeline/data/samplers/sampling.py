"""Which images a step shows: positions in the label vectors, drawn before the epoch begins.

Drawn at once, an epoch's batches are a value: iterating twice gives the same batches, and nothing that happens during
the epoch moves what is drawn.
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
    """The batches of one epoch: in each modality some clusters, and as many images of each of them.

    Within a batch images of one cluster stand together. A last, smaller batch never occurs. The clusters of the two
    modalities are drawn apart from each other.
    """

    positions: PerModality[Int64[np.ndarray, "steps batch"]]
    clusters_per_batch: PerModality[int]

    def __len__(self) -> int:
        return len(self.positions.visible)

    def __iter__(self) -> Iterator[PerModality[Int64[np.ndarray, " batch"]]]:
        for visible, infrared in zip(self.positions.visible, self.positions.infrared, strict=True):
            yield PerModality(visible, infrared)


@dataclass(frozen=True, slots=True)
class PairedBatches:
    """Batches of two image lists that have nothing to do with each other; the last one may be smaller, never empty."""

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
    """Draw an epoch of batches: P clusters of each modality, and K images of each cluster.

    Fewer than P clusters in a modality: all of them, in every batch, reported once. Fewer than K images in a cluster:
    drawn with repetition. The number of steps follows the longer list and the P and K that were asked for.

    Args:
        labels: A cluster for each image; outliers (-1) are never drawn.
        clusters_per_batch: P, at least 1; drawn without repetition within a batch.
        images_per_cluster: K, at least 1.
        replacement: `always`: images of a cluster are drawn with repetition even where it has enough; `when_short`:
            only where it has fewer than K.
        generator: Where the draws come from; visible batches are drawn first, then infrared ones.

    Returns:
        `max(labelled images of a modality) // (P K) + 1` batches of positions in the label vectors.

    Raises:
        DegenerateClustering: All images of a modality are outliers.

    Cost:
        One sort of the labels, then work in proportion to what is drawn; about 30 ms for the 348 batches of SYSU-MM01.

    Source: Chen et al., ACM MM 2023 (CCLNet); public code, sampler of the image stages. Differs: fewer clusters than P
    is not an error.
    """
    clusters = PerModality.build(lambda modality: _clusters(labels[modality], modality))
    longer = max(len(one.images) for one in clusters)
    num_steps = longer // (clusters_per_batch * images_per_cluster) + 1
    shown = clusters.map(lambda one: min(clusters_per_batch, len(one.counts)))
    for modality, num_shown in shown.items():
        if num_shown < clusters_per_batch:
            logger.info("batches show all %d %s clusters; %d were asked for", num_shown, modality, clusters_per_batch)
    positions = clusters.map_with(
        lambda one, num_shown: np.stack(
            [_draw_batch(one, num_shown, images_per_cluster, replacement, generator) for _ in range(num_steps)]
        ),
        shown,
    )
    return CrossModalBatches(positions, shown)


def paired_batches(counts: PerModality[int], batch_size: int, generator: np.random.Generator) -> PairedBatches:
    """Run through two image lists side by side until the longer one is used up.

    Args:
        counts: How many images each list has.
        batch_size: Images of each list in a batch.
        generator: Where the order comes from.

    Returns:
        `ceil(max(counts) / batch_size)` batches. The longer list occurs in random order, each image once; the shorter
        one likewise, followed by as many uniform draws with repetition as it lacks.

    Raises:
        DegenerateClustering: A list is empty.

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
    """Sort images by label, those of one label in their order; images with a negative label are left out."""
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
    """As many images of each chosen label as wanted, side by side; `chosen` counts the labels that occur."""
    starts, counts = clusters.starts[chosen], clusters.counts[chosen]
    # With repetition for everyone; clusters that must not repeat are then drawn over.
    offsets = generator.integers(0, counts[:, None], size=(len(chosen), num_images))
    if replacement == "when_short":
        enough = np.flatnonzero(counts >= num_images)
        offsets[enough] = _draw_without_repetition(counts[enough], num_images, generator)
    positions: Int64[np.ndarray, " batch"] = clusters.images[(starts[:, None] + offsets).ravel()]
    return positions


def _clusters(labels: Int[np.ndarray, " n"], modality: Modality) -> ImagesByLabel:
    clusters = sort_by_label(labels)
    if len(clusters.images) == 0:
        raise _nothing_labelled(len(labels), modality)
    return clusters


def _draw_batch(
    clusters: ImagesByLabel,
    num_clusters: int,
    num_images: int,
    replacement: Replacement,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " batch"]:
    chosen = generator.choice(len(clusters.counts), size=num_clusters, replace=False)
    return draw_images(clusters, chosen, num_images, replacement, generator)


def _draw_without_repetition(
    counts: Int64[np.ndarray, " rows"], num_drawn: int, generator: np.random.Generator
) -> Int64[np.ndarray, "rows drawn"]:
    """Distinct numbers below each row's count: the places of the smallest of as many random keys."""
    keys = generator.random((len(counts), max(counts, default=num_drawn)))
    keys[np.arange(keys.shape[1]) >= counts[:, None]] = np.inf
    return np.argsort(keys, axis=1)[:, :num_drawn]


def _nothing_labelled(num_images: int, modality: Modality) -> DegenerateClustering:
    return DegenerateClustering(
        f"none of the {num_images} {modality} images belongs to a cluster: there is nothing to draw batches from",
        hint=f"raise labelling.{modality}.eps, or lower labelling.{modality}.min_samples",
    )
