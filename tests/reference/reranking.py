"""k-reciprocal re-ranking from its definition: float64, all images against all images, one after the other.

Follows Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, sections 3.2 to 3.5,
in the form that zhunzhong07/person-re-ranking releases (python-version/re_ranking_ranklist.py): every image's distances
are divided by its largest one.
"""

import numpy as np

from tests.reference.clustering import mutual, ranked


def original_distances(images):
    """N x N: row i is divided by the squared distance of image i to its farthest image."""
    squared = np.array([((images - image) ** 2).sum(axis=1) for image in images])
    # The public code divides every column by its maximum and transposes, which is this.
    largest = squared.max(axis=0)
    return (squared / np.where(largest > 0, largest, 1)).T


def encodings(images, original, k1, k2):
    """N x N: row i is the neighbourhood of image i, averaged over its first k2 neighbours, itself among them."""
    ranks = ranked(images)
    # k1 does not count the image itself, which is its own first neighbour.
    neighbourhood = [mutual(ranks, image, k1 + 1) for image in range(len(images))]
    half = [mutual(ranks, image, round(k1 / 2) + 1) for image in range(len(images))]
    weights = np.zeros_like(original)
    for image, own in enumerate(neighbourhood):
        expanded = set(own)
        for candidate in own:
            if len(half[candidate] & own) > 2 / 3 * len(half[candidate]):
                expanded |= half[candidate]
        members = sorted(expanded)
        power = np.exp(-original[image, members])
        weights[image, members] = power / power.sum()
    return np.array([weights[ranks[image, :k2]].mean(axis=0) for image in range(len(images))])


def final_distances(query, gallery, k1, k2, original_weight):
    """q x g, smaller is nearer."""
    images = np.concatenate([query, gallery]).astype(np.float64)
    k1, k2 = min(k1, len(images)), min(k2, len(images))
    original = original_distances(images)
    rows = encodings(images, original, k1, k2)
    final = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            other = len(query) + j
            shared = np.minimum(rows[i], rows[other]).sum()
            jaccard = 1 - shared / (2 - shared)
            final[i, j] = (1 - original_weight) * jaccard + original_weight * original[i, other]
    return final
