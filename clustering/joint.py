"""One clustering over the images of both modalities, with as many neighbours of either, and its parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Float32, Int32, Int64

from clustering.dbscan import OUTLIER, Clustering
from clustering.jaccard import CURVE_EPS
from clustering.labelling import Joined, Labelling, Method, check_density, join_lists, labelled
from clustering.matching import Matching, match_clusters
from clustering.neighbours import Neighbours, put_in_order, search_between
from clustering.prototypes import cluster_prototypes
from clustering.rows import check_matrix, check_unit_rows


@dataclass(frozen=True, slots=True)
class BalancedLengths:
    """Neighbours of either modality in each list, and over how many of either modality weights are averaged."""

    visible: int
    infrared: int
    averaged: int

    @property
    def listed(self) -> int:
        """Length of a merged list."""
        return self.visible + self.infrared

    @property
    def averaged_in_all(self) -> int:
        """Images over which a neighbourhood is averaged, of the modalities that have images."""
        return self.averaged * ((self.visible > 0) + (self.infrared > 0))


def balanced_lengths(num_visible: int, num_infrared: int, k1: int, k2: int) -> BalancedLengths:
    """Half of k1 for each modality, clamped to its images; k2 clamped to those of the smaller modality with images.

    Raises:
        ValueError: k1 is not an even number of at least 2, or k2 is not from 1 to k1 / 2.
    """
    half = k1 // 2
    if k1 % 2 or not 1 <= k2 <= half:
        raise ValueError(f"k1 must be even, with half of it of each modality, and k2 from 1 to k1 / 2: {k1=}, {k2=}")
    lengths = min(half, num_visible), min(half, num_infrared)
    return BalancedLengths(*lengths, min([k2, *(length for length in lengths if length)]))


def balanced_lists(
    features: Float32[np.ndarray, "n d"], num_visible: int, lengths: BalancedLengths
) -> tuple[Neighbours, Int32[np.ndarray, "n averaged"]]:
    """Neighbours of each image with a fixed number of either modality, and the images to average over.

    `features` are unit rows, the visible ones first. A list has the most similar visible and the most similar infrared
    images, merged by similarity, itself first; ties are as in `nearest_neighbours`. The second result has the nearest
    visible, then the nearest infrared images, `lengths.averaged` of either.

    Cost: n^2 d multiplications, and 30 bytes a list entry.
    """
    parts = range(num_visible), range(num_visible, len(features))
    halves = []
    for targets, length in zip(parts, (lengths.visible, lengths.infrared), strict=True):
        if length:
            found = [search_between(features, queries, targets, length) for queries in parts]
            halves.append(tuple(np.concatenate(one) for one in zip(*found, strict=True)))
    ranks, similarities = (np.concatenate(one, axis=1) for one in zip(*halves, strict=True))
    averaged = np.concatenate([half[0][:, : lengths.averaged] for half in halves], axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranks, similarities = (np.take_along_axis(one, order, axis=1) for one in (ranks, similarities))
    merged, merged_similarities = np.empty_like(ranks), np.empty_like(similarities)
    settled = np.empty(len(features), np.bool_)  # not read: a list has no other candidates
    put_in_order(features, ranks.astype(np.int64), similarities, 0, merged, merged_similarities, settled)
    return Neighbours(merged, merged_similarities, search="faiss-cpu exact, balanced"), averaged


def label_jointly(
    visible: Float32[np.ndarray, "n1 d"],
    infrared: Float32[np.ndarray, "n2 d"],
    *,
    k1: int = 30,
    k2: int = 6,
    eps: float = 0.6,
    min_samples: int = 4,
    visible_rows: Int64[np.ndarray, " m"] | None = None,
    method: Method = "dbscan",
    device: str = "cpu",
) -> Labelling:
    """Cluster the images of both modalities in one graph, in which neither modality can crowd out the other.

    The labels are those of the visible images, then of the infrared ones. Equal features give equal labels, whatever
    the device and the number of threads. If a modality has no images, the result is that of `label_images` with half of
    `k1`. `k1` of the result is the length of the lists, `k2` the number of images of either modality.

    Args:
        visible: Unit rows. Not changed.
        infrared: Unit rows of the same width. Not changed.
        k1: Length of the lists, half of it the most similar images of each modality, the image itself one of them.
            Even; each half is clamped to the modality's images.
        k2: Nearest images of each modality over which a neighbourhood is averaged, from 1 to k1 / 2. Clamped to the
            images of the smaller modality.
        eps: See `label_images`.
        min_samples: See `label_images`.
        visible_rows: Visible images that take part, in the order of their labels; all by default.
        method: See `label_images`.
        device: See `label_images`.

    Raises:
        ValueError: As `label_images`, or the widths of the features differ.

    Cost: The neighbours, (n1 + n2)^2 d: 1.8 times the products of both modalities alone at the sizes of SYSU-MM01. At
    4,000 + 2,000 x 512, twice the time of both alone. A copy of the features.

    Source: BMIL, AAAI 2026, balanced joint clustering, with the lists and means of the released code. Differs: if a
    modality has fewer than k2 images, both means are of that number.
    """
    for rows in (visible, infrared):
        check_matrix(rows)
    check_density(eps, min_samples)
    if visible_rows is not None:
        visible = visible[visible_rows]
    lengths = balanced_lengths(len(visible), len(infrared), k1, k2)
    joined = _join(np.concatenate([visible, infrared]), len(visible), lengths, eps, CURVE_EPS, device)
    return labelled(joined, k1=lengths.listed, k2=lengths.averaged, eps=eps, min_samples=min_samples, method=method)


def _join(
    features: Float32[np.ndarray, "n d"],
    num_visible: int,
    lengths: BalancedLengths,
    eps: float,
    wider: Sequence[float],
    device: str,
) -> Joined:
    """The radius graph of both modalities."""
    if not len(features):
        lists = Neighbours(np.empty((0, 1), np.int32), np.empty((0, 1), np.float32))
        return join_lists(features, lists, k1=1, k2=1, eps=eps, wider=wider, neighbours_seconds=0.0)
    if device != "cpu":
        from clustering.joined_torch import join_balanced_on_device, torch_device  # here, as in `labelling`

        return join_balanced_on_device(
            features, num_visible, lengths, eps=eps, wider=wider, device=torch_device(device)
        )
    check_unit_rows(features)
    began = perf_counter()
    neighbours, averaged = balanced_lists(features, num_visible, lengths)
    return join_lists(
        features, neighbours, k1=lengths.listed, k2=lengths.averaged_in_all, eps=eps, wider=wider, averaged=averaged,
        neighbours_seconds=perf_counter() - began,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class JointClusters:
    """A joint clustering, separated by modality.

    `visible` and `infrared` number the clusters of their modality without a gap, in the order of the joint numbers.
    `matching` pairs the parts of clusters that hold both modalities, with the similarity of their prototypes.
    `two_modality_share` is the share of joint clusters with such parts, in [0, 1]; 0 without clusters.
    """

    visible: Clustering
    infrared: Clustering
    matching: Matching
    two_modality_share: float


def split_by_modality(
    joint: Clustering,
    visible: Float32[np.ndarray, "n1 d"],
    infrared: Float32[np.ndarray, "n2 d"],
    *,
    visible_rows: Int64[np.ndarray, " m"] | None = None,
) -> JointClusters:
    """Separate a joint clustering (visible images first) and read the pairs of clusters off it.

    `visible` and `infrared` are all images' unit rows. `visible_rows` are those that took part in the clustering, all
    by default; the others are outliers of `JointClusters.visible`.

    Raises:
        ValueError: There is not one label for each image, or a part of a cluster has no prototype.

    Cost: One pass over the features of clusters.
    """
    rows = np.arange(len(visible)) if visible_rows is None else visible_rows
    if len(joint.labels) != len(rows) + len(infrared):
        raise ValueError(
            f"{len(rows)} visible and {len(infrared)} infrared images need as many labels, not {len(joint.labels)}"
        )
    labels, core = np.full(len(visible), OUTLIER), np.zeros(len(visible), np.bool_)
    labels[rows], core[rows] = joint.labels[: len(rows)], joint.core[: len(rows)]
    held_visible, of_visible = _compact(labels, core)
    held_infrared, of_infrared = _compact(joint.labels[len(rows) :], joint.core[len(rows) :])
    both, first, second = np.intersect1d(held_visible, held_infrared, assume_unique=True, return_indices=True)
    matching = match_clusters(
        cluster_prototypes(visible, of_visible.labels),
        cluster_prototypes(infrared, of_infrared.labels),
        method=lambda _: (first, second),
    )
    return JointClusters(of_visible, of_infrared, matching, len(both) / max(1, joint.num_clusters))


def _compact(labels: Int64[np.ndarray, " n"], core: np.ndarray) -> tuple[Int64[np.ndarray, " c"], Clustering]:
    """The cluster numbers in use, ascending, and the clustering numbered by them."""
    held, places = np.unique(labels[labels != OUTLIER], return_inverse=True)
    compact = np.full(len(labels), OUTLIER)
    compact[labels != OUTLIER] = places
    return held, Clustering(compact, core)
