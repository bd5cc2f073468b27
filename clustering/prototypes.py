"""Cluster prototypes, and the prototype nearest to each image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from clustering.cluster_kernels import sum_by_cluster
from clustering.dbscan import OUTLIER
from clustering.neighbours import SIMILARITIES_PER_BLOCK, TIE_TOLERANCE
from clustering.rows import check_unit_rows


def cluster_prototypes(
    features: Float32[np.ndarray, "n d"], labels: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "c d"]:
    """Average the features (unit rows) of each cluster 0, 1, ..., without outliers, and scale the means to length 1.

    The mean is summed in float64: the image order changes nothing above 1e-7.

    Raises:
        ValueError: A row is not finite or not of unit length, the numbers of labels and rows differ, a label is below
            -1, a cluster number has no image, or the features of a cluster cancel out.

    Cost: One pass over the features; 8 bytes for each of the c d sums.
    """
    if len(labels) != len(features):
        raise ValueError(f"{len(features)} rows of features need as many labels, not {len(labels)}")
    if labels.min(initial=OUTLIER) < OUTLIER:
        raise ValueError(f"labels must be {OUTLIER} or a cluster number, not {labels.min()}")
    check_unit_rows(features)
    num_clusters = int(labels.max(initial=OUTLIER)) + 1
    empty = np.flatnonzero(np.bincount(labels[labels != OUTLIER], minlength=num_clusters) == 0)
    if len(empty):
        raise ValueError(f"cluster {empty[0]} of {num_clusters} has no image")
    sums = np.zeros((num_clusters, features.shape[1]), np.float64)
    sum_by_cluster(features, labels, sums)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    cancelled = np.flatnonzero(lengths < 1e-6)
    if len(cancelled):
        raise ValueError(f"the features of cluster {cancelled[0]} cancel out, so their mean has no direction")
    prototypes: Float32[np.ndarray, "c d"] = (sums / lengths).astype(np.float32)
    return prototypes


@dataclass(frozen=True, slots=True, eq=False)
class CameraProxies:
    """One unit row for each cluster and camera with images of it, by ascending cluster, then camera.

    `clusters` is the cluster of each proxy, `of_images` the proxy of each image, or `OUTLIER`.
    """

    prototypes: Float32[np.ndarray, "p d"]
    clusters: Int64[np.ndarray, " p"]
    of_images: Int64[np.ndarray, " n"]


def camera_proxies(
    features: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], cameras: Int64[np.ndarray, " n"]
) -> CameraProxies:
    """Split clusters by camera, and average each part as `cluster_prototypes` does.

    Source: Wang et al., AAAI 2021 (CAP), camera-aware proxies.
    """
    clustered = labels != OUTLIER
    parts, of_clustered = np.unique(np.stack([labels, cameras])[:, clustered], axis=1, return_inverse=True)
    of_images = np.full(len(labels), OUTLIER, np.int64)
    of_images[clustered] = of_clustered.ravel()
    return CameraProxies(cluster_prototypes(features, of_images), parts[0], of_images)


def nearest_prototypes(
    features: Float32[np.ndarray, "n d"], prototypes: Float32[np.ndarray, "c d"]
) -> Int64[np.ndarray, " n"]:
    """The most similar prototype (of at least one) of each image, the first in a tie.

    Similarities within rounding of the largest are computed again in float64.

    Cost: n c d multiplications; 16 MB.
    """
    nearest = np.empty(len(features), np.int64)
    rows = max(1, SIMILARITIES_PER_BLOCK // len(prototypes))
    for first in range(0, len(features), rows):
        block = features[first : first + rows]
        similarities = block @ prototypes.T
        nearest[first : first + rows] = similarities.argmax(axis=1)
        near = similarities >= similarities.max(axis=1, keepdims=True) - np.float32(TIE_TOLERANCE)
        tied = np.flatnonzero(np.count_nonzero(near, axis=1) > 1)
        image, prototype = np.nonzero(near[tied])
        exact = np.full((len(tied), len(prototypes)), -np.inf)
        exact[image, prototype] = row_products(block[tied[image]], prototypes[prototype])
        nearest[first + tied] = exact.argmax(axis=1)
    return nearest


def row_products(first: Float32[np.ndarray, "m d"], second: Float32[np.ndarray, "m d"]) -> Float64[np.ndarray, " m"]:
    """Inner products of paired rows, in float64."""
    products: Float64[np.ndarray, " m"] = np.einsum("md,md->m", first, second, dtype=np.float64)
    return products
