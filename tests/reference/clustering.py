"""Clustering from its definition: float64, full matrices, one image after the other.

Follows Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, sections 3.2 to 3.4,
in the form that CzAngus/CCLNet releases (util/faiss_rerank.py): softmax weights, an image is one of its k1 neighbours.
"""

import itertools

import numpy as np


def ranked(features):
    """All images by similarity to each image: itself first, ties by smaller index."""
    order = [ranked_images(features, image) for image in range(len(features))]
    return np.array(order, dtype=np.int64).reshape(len(features), len(features))


def ranked_images(features, image):
    """All images by similarity to one image: itself first, ties by smaller index."""
    rows = features.astype(np.float64)
    similarity = (rows * rows[image]).sum(axis=1)
    similarity[image] = np.inf
    return np.lexsort((np.arange(len(rows)), -similarity))


def mutual(ranks, image, width):
    """N(i, w): those of the first w that have i among their own first w."""
    return {int(other) for other in ranks[image, :width] if image in ranks[other, :width]}


def neighbourhoods(features, k1, k2, *, k1_counts_self=True):
    """The rows of W, n x n."""
    ranks = ranked(features)
    width = k1 if k1_counts_self else k1 + 1
    return weights_of_lists(features, ranks, width, round(k1 / 2) + 1, ranks[:, :k2])


def weights_of_lists(features, ranks, width, half_width, averaged):
    """The rows of W, from lists of neighbours and the images over which each row is averaged."""
    rows = features.astype(np.float64)
    long = [mutual(ranks, image, width) for image in range(len(rows))]
    half = [mutual(ranks, image, half_width) for image in range(len(rows))]
    weights = np.zeros((len(rows), len(rows)))
    for image, own in enumerate(long):
        expanded = set(own)
        for candidate in own:
            if len(half[candidate] & own) > 2 * len(half[candidate]) / 3:
                expanded |= half[candidate]
        members = sorted(expanded)
        power = np.exp(-(2 - 2 * rows[members] @ rows[image]))
        weights[image, members] = power / power.sum()
    if averaged.shape[1] == 1:
        return weights
    return np.array([weights[others].mean(axis=0) for others in averaged]).reshape(weights.shape)


def jaccard_distances(features, k1, k2, *, k1_counts_self=True):
    """d, n x n, from the sums of the smaller weights."""
    return distances_of_weights(neighbourhoods(features, k1, k2, k1_counts_self=k1_counts_self))


def balanced_lists(features, num_visible, half):
    """Half a list of each modality, merged by similarity, the image itself first; and these halves, visible first."""
    visible, infrared = [], []
    for order in ranked(features):
        visible.append(order[order < num_visible][:half])
        infrared.append(order[order >= num_visible][:half])
    merged = []
    for image, halves in enumerate(zip(visible, infrared, strict=True)):
        listed = set(np.concatenate(halves).tolist())
        merged.append([other for other in ranked_images(features, image) if other in listed])
    return np.array(merged, dtype=np.int64), np.array(visible), np.array(infrared)


def balanced_distances(features, num_visible, k1, k2):
    """d between the images of both modalities, n x n; both have at least k1 / 2 images."""
    ranks, visible, infrared = balanced_lists(features, num_visible, k1 // 2)
    rows = weights_of_lists(features, ranks, k1, round(k1 / 2) + 1, np.arange(len(features))[:, None])
    means = [[rows[others[:k2]].mean(axis=0) for others in half] for half in (visible, infrared)]
    return distances_of_weights((np.array(means[0]) + np.array(means[1])) / 2)


def distances_of_weights(weights):
    """d, n x n, from the rows of W."""
    columns = np.ascontiguousarray(weights.T)
    distances = np.ones_like(weights)
    for image, row in enumerate(weights):
        members = np.flatnonzero(row)
        shared = np.minimum(row[members, None], columns[members]).sum(axis=0)
        distances[image] = np.maximum(0.0, 1.0 - shared / (2.0 - shared))
    return distances


def prototypes(features, labels):
    """The unit mean of each cluster, image after image."""
    clusters = sorted({int(label) for label in labels if label >= 0})
    means = []
    for cluster in clusters:
        total = sum(row.astype(np.float64) for row, label in zip(features, labels, strict=True) if label == cluster)
        means.append(total / np.linalg.norm(total))
    return np.array(means).reshape(len(clusters), features.shape[1])


def best_assignment(similarity):
    """The largest total similarity of one-to-one pairs that use up the shorter side, by trying all of them."""
    rows = similarity if similarity.shape[0] <= similarity.shape[1] else similarity.T
    return max(
        sum(rows[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(rows.shape[1]), rows.shape[0])
    )
