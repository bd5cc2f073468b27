"""Compiled loops of DBSCAN and of the prototypes."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64

from clustering.parallel import kernel


@kernel
def _root(parents: Int32[np.ndarray, " n"], image: int) -> int:
    """Root of an image's tree, with path halving."""
    while parents[image] != image:
        parents[image] = parents[parents[image]]
        image = parents[image]
    return image


@kernel
def label_pairs(
    source: Int32[np.ndarray, " e"],
    target: Int32[np.ndarray, " e"],
    overlap: Int64[np.ndarray, " e"],
    least: int,
    min_samples: int,
    labels: Int64[np.ndarray, " n"],
    core: Bool[np.ndarray, " n"],
) -> None:
    """Fill labels and core flags from the pairs that overlap by at least `least`."""
    num_images = len(labels)
    near = np.ones(num_images, np.int64)  # an image counts itself
    for pair in range(len(source)):
        if overlap[pair] >= least:
            near[source[pair]] += 1
            near[target[pair]] += 1
    for image in range(num_images):
        core[image] = near[image] >= min_samples
    parents = np.arange(num_images).astype(np.int32)
    for pair in range(len(source)):
        if overlap[pair] >= least and core[source[pair]] and core[target[pair]]:
            first, second = _root(parents, source[pair]), _root(parents, target[pair])
            parents[max(first, second)] = min(first, second)  # so a root is its cluster's smallest core image
    clusters = 0
    for image in range(num_images):
        labels[image] = -1
        if core[image]:
            root = _root(parents, image)
            if root == image:
                labels[image] = clusters
                clusters += 1
            else:
                labels[image] = labels[root]  # the root is smaller, so it has its number
    for pair in range(len(source)):
        first, second = source[pair], target[pair]
        if overlap[pair] >= least and core[first] != core[second]:
            border, founder = (second, first) if core[first] else (first, second)
            if labels[border] == -1 or labels[founder] < labels[border]:
                labels[border] = labels[founder]


@kernel
def sum_by_cluster(
    features: Float32[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], sums: Float64[np.ndarray, "c d"]
) -> None:
    """Add each image's features to its cluster's sum, except for negative labels."""
    for image in range(len(labels)):
        if labels[image] >= 0:
            for place in range(features.shape[1]):
                sums[labels[image], place] += features[image, place]
