"""Soft targets from the clusters of an image's neighbours."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64
from scipy.sparse import csr_array

from clustering.dbscan import OUTLIER

ONE_HOT_SHARE = 0.7  # of a target; the rest is the neighbours'
DOUBT_SCALE = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class SoftLabels:
    """Targets and weights of images in a classification over clusters.

    A row of `targets` (images by clusters, float32) sums to 1; it is empty for an image without a cluster, whose weight
    is 0. `weights` are in [0, 1].
    """

    targets: csr_array
    weights: Float32[np.ndarray, " n"]


def soft_labels(
    ranks: Int32[np.ndarray, "n k"],
    labels: Int64[np.ndarray, " m"],
    own: Int64[np.ndarray, " n"],
    *,
    one_hot_share: float = ONE_HOT_SHARE,
) -> SoftLabels:
    """Turn the clusters of neighbours into soft targets.

    The share of a cluster with v of an image's k neighbours and n_c images in all is v / (k - v + n_c), scaled so that
    an image's shares sum to 1; neighbours that are outliers have no vote. The target is 0.7 of the own cluster and 0.3
    of these shares; the weight is exp(-10 (1 - own share)^2). Without a vote, the target is the own cluster, and the
    weight is 0.

    Args:
        ranks: Neighbours as rows of `labels`; within one modality the image itself is the first.
        labels: Clusters of the images that vote, or `OUTLIER`.
        own: Cluster of each image among those of `labels`, or `OUTLIER`.
        one_hot_share: Share of the own cluster, in [0, 1].

    Raises:
        ValueError: The share is not in [0, 1], or an own cluster does not exist.

    Cost: 24 bytes a neighbour; never images by clusters.

    Source: N-ULC, AAAI 2025, released code. Differs: neighbours of the image's own modality only.
    """
    if not 0.0 <= one_hot_share <= 1.0:
        raise ValueError(f"one_hot_share must be from 0 to 1, not {one_hot_share}")
    num_images, num_clusters = len(own), int(labels.max(initial=OUTLIER)) + 1
    if own.max(initial=OUTLIER) >= num_clusters:
        raise ValueError(f"an image is in cluster {own.max()} of {num_clusters}")
    votes = labels[ranks]
    image, place = np.nonzero(votes != OUTLIER)
    keys, counts = np.unique(image * np.int64(num_clusters) + votes[image, place], return_counts=True)
    rows, clusters = np.divmod(keys, max(1, num_clusters))
    sizes = np.bincount(labels[labels != OUTLIER], minlength=num_clusters)
    shares = counts / (ranks.shape[1] - counts + sizes[clusters])
    shares /= np.bincount(rows, shares, minlength=num_images)[rows]
    own_share = np.zeros(num_images)
    is_own = own[rows] == clusters
    own_share[rows[is_own]] = shares[is_own]
    voted = np.bincount(rows, minlength=num_images) > 0
    clustered = own != OUTLIER
    counted, kept = np.flatnonzero(clustered), clustered[rows]
    targets = csr_array(
        (
            np.concatenate([np.where(voted[counted], one_hot_share, 1.0), (1.0 - one_hot_share) * shares[kept]]),
            (np.concatenate([counted, rows[kept]]), np.concatenate([own[counted], clusters[kept]])),
        ),
        shape=(num_images, num_clusters),
    )  # entries of one place are added
    weights = np.where(clustered & voted, np.exp(-DOUBT_SCALE * (1.0 - own_share) ** 2), 0.0)
    return SoftLabels(targets.astype(np.float32), weights.astype(np.float32))
