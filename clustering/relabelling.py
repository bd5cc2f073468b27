"""Labels after the clustering: images move to the prototype of a cluster's dense part, outliers join near clusters."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from clustering.dbscan import OUTLIER, Clustering
from clustering.neighbours import SIMILARITIES_PER_BLOCK, TIE_TOLERANCE
from clustering.prototypes import cluster_prototypes, nearest_prototypes, row_products
from clustering.rows import check_unit_rows

DENSEST = 20  # RPNR on SYSU-MM01; 5 on RegDB
NEAR = 0.5  # cosine
FEW = 64  # rows; on a busy machine, the threads of a matrix product of so few start later than einsum ends
JOINED_WEIGHT = 0.5  # of an outlier that joins a cluster


def relabel_by_density(
    features: Float32[np.ndarray, "n d"], clustering: Clustering, *, densest: int = DENSEST
) -> Clustering:
    """Move each clustered image to the nearest prototype, formed by the `densest` images of each cluster.

    The density of an image is the number of images of its cluster, itself included, with cosine above 0.5 less those
    below. In a tie the smaller index is denser, and the smaller cluster nearer. Outliers stay outliers, core images
    core images; clusters without images are removed and the others numbered again.

    Args:
        features: Unit rows. Not changed.
        clustering: Not changed.
        densest: At least 1; a smaller cluster takes all its images.

    Raises:
        ValueError: A row is not of unit length, `densest` is below 1, or the densest images of a cluster cancel out.

    Cost: d multiplications for each pair of a cluster and for each image and cluster: 2.4 s at 22,258 x 2048 with 616
    clusters, on two busy cores; 16 MB and a copy of the clustered images.

    Source: RPNR, ACM MM 2024, released code.
    """
    if densest < 1:
        raise ValueError(f"densest must be at least 1, not {densest}")
    check_unit_rows(features)
    clustered = np.flatnonzero(clustering.labels != OUTLIER)
    if not len(clustered):
        return clustering
    members = clustered[np.argsort(clustering.labels[clustered], kind="stable")]
    sizes = np.bincount(clustering.labels[members])
    starts = np.cumsum(sizes) - sizes
    densities = np.concatenate([_densities(features[one]) for one in np.split(members, starts[1:])])
    by_density = members[np.lexsort((-densities, clustering.labels[members]))]  # stable: ties by index
    dense = by_density[np.arange(len(members)) - np.repeat(starts, sizes) < densest]
    founding = np.full(len(features), OUTLIER)
    founding[dense] = clustering.labels[dense]
    labels = np.full(len(features), OUTLIER)
    nearest = nearest_prototypes(features[clustered], cluster_prototypes(features, founding))
    labels[clustered] = np.unique(nearest, return_inverse=True)[1]
    return Clustering(labels, clustering.core.copy())


def _densities(rows: Float32[np.ndarray, "m d"]) -> Int64[np.ndarray, " m"]:
    """Rows with cosine above `NEAR` less rows below, for each row; cosines within rounding of it in float64."""
    densities = np.empty(len(rows), np.int64)
    block = max(1, SIMILARITIES_PER_BLOCK // len(rows))
    for first in range(0, len(rows), block):
        part = rows[first : first + block]
        beyond = (np.einsum("id,jd->ij", part, rows) if len(rows) <= FEW else part @ rows.T) - np.float32(NEAR)
        image, other = np.nonzero(np.abs(beyond) <= TIE_TOLERANCE)
        beyond[image, other] = row_products(rows[first + image], rows[other]) - NEAR
        densities[first : first + block] = np.sign(beyond).sum(axis=1)
    return densities


@dataclass(frozen=True, slots=True)
class AssignedOutliers:
    """Labels in which some outliers have joined a cluster, and which ones; none of them is a core image."""

    clustering: Clustering
    joined: Bool[np.ndarray, " n"]

    @property
    def founding_labels(self) -> Int64[np.ndarray, " n"]:
        """The labels without those that joined: prototypes are formed of these."""
        return np.where(self.joined, OUTLIER, self.clustering.labels)

    @property
    def weights(self) -> Float32[np.ndarray, " n"]:
        """Weight of each image in a loss: 1, 0.5 if it joined, 0 if it is an outlier."""
        weights = np.where(self.joined, JOINED_WEIGHT, self.clustering.labels != OUTLIER)
        return weights.astype(np.float32)


def assign_outliers(features: Float32[np.ndarray, "n d"], clustering: Clustering) -> AssignedOutliers:
    """Let each outlier join the cluster of its nearest prototype, if it is nearer than that cluster's median image.

    The median is that of the similarity of the cluster's images to their prototype; the outlier's must exceed it.
    Prototypes and medians are those before any outlier joins.

    Raises:
        ValueError: A row is not of unit length, or the features of a cluster cancel out.

    Cost: d multiplications for each outlier and cluster, and one pass over the features.

    Source: The rule is ours; DLM assigns outliers in another way.
    """
    labels, joined = clustering.labels.copy(), np.zeros(len(features), np.bool_)
    outliers, members = np.flatnonzero(labels == OUTLIER), np.flatnonzero(labels != OUTLIER)
    prototypes = cluster_prototypes(features, labels)
    if len(outliers) and len(members):
        own = row_products(features[members], prototypes[labels[members]])
        nearest = nearest_prototypes(features[outliers], prototypes)
        near = row_products(features[outliers], prototypes[nearest]) > _medians(own, labels[members])[nearest]
        labels[outliers[near]], joined[outliers[near]] = nearest[near], True
    return AssignedOutliers(Clustering(labels, clustering.core.copy()), joined)


def _medians(values: Float64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " c"]:
    """The median of each group 0, 1, ...; of an even number, the mean of the middle two."""
    ordered = values[np.lexsort((values, groups))]
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    medians: Float64[np.ndarray, " c"] = (ordered[starts + (sizes - 1) // 2] + ordered[starts + sizes // 2]) / 2.0
    return medians
