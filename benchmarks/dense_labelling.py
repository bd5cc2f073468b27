"""Pseudo-labels as published code computes them: full matrices, one image after the other in Python.

The slow side of the comparison in `benchmarks/clustering_engine.py`. It starts from lists of neighbours that somebody
else found, and so measures everything but the search. Memory is about eleven bytes for each pair of images.

Source: Zhong et al., CVPR 2017, sections 3.2 to 3.4; the arrays and loops are those of CzAngus/CCLNet,
util/faiss_rerank.py, followed by scikit-learn's DBSCAN on the finished matrix.
"""

import numpy as np
from jaxtyping import Float32, Int32, Int64
from sklearn.cluster import DBSCAN


def dense_labels(
    features: Float32[np.ndarray, "n d"],
    ranks: Int32[np.ndarray, "n k"],
    *,
    k1: int,
    k2: int,
    eps: float,
    min_samples: int,
) -> Int64[np.ndarray, " n"]:
    """Cluster numbers from unit rows and their lists of neighbours, -1 for an outlier."""
    distances = dense_distances(dense_weights(features, ranks, k1, k2))
    labels: Int64[np.ndarray, " n"] = DBSCAN(
        eps=eps, min_samples=min_samples, metric="precomputed", n_jobs=-1
    ).fit_predict(distances)
    return labels


def dense_weights(
    features: Float32[np.ndarray, "n d"], ranks: Int32[np.ndarray, "n k"], k1: int, k2: int
) -> Float32[np.ndarray, "n n"]:
    """Softmax weights over each expanded reciprocal set, averaged over the first k2 neighbours."""
    num_images = len(features)
    weights = np.zeros((num_images, num_images), np.float32)
    for image in range(num_images):
        own = reciprocal(ranks, image, k1)
        members = own
        for candidate in own:
            close = reciprocal(ranks, candidate, round(k1 / 2) + 1)
            if 3 * len(np.intersect1d(close, own)) > 2 * len(close):
                members = np.append(members, close)
        members = np.unique(members)
        powers = np.exp(2.0 * (features[members] @ features[image]) - 2.0)
        weights[image, members] = powers / powers.sum()
    if k2 == 1:
        return weights
    averaged = np.zeros_like(weights)
    for image in range(num_images):
        averaged[image] = weights[ranks[image, :k2]].mean(axis=0)
    return averaged


def reciprocal(ranks: Int32[np.ndarray, "n k"], image: int, width: int) -> Int32[np.ndarray, " r"]:
    """Those of an image's first `width` neighbours that have it among their own."""
    near = ranks[image, :width]
    mutual: Int32[np.ndarray, " r"] = near[(ranks[near, :width] == image).any(axis=1)]
    return mutual


def dense_distances(weights: Float32[np.ndarray, "n n"]) -> Float32[np.ndarray, "n n"]:
    """Jaccard distance of every pair, from the sums of the smaller weights."""
    num_images = len(weights)
    holders = [np.flatnonzero(weights[:, column]) for column in range(num_images)]
    distances = np.empty_like(weights)
    for image in range(num_images):
        shared = np.zeros(num_images, np.float32)
        for column in np.flatnonzero(weights[image]):
            rows = holders[column]
            shared[rows] += np.minimum(weights[image, column], weights[rows, column])
        distances[image] = 1.0 - shared / (2.0 - shared)
    np.maximum(distances, 0.0, out=distances)
    return distances
