"""Relabelling, joining outliers, votes and sub-prototypes from their definitions: float64, image after image."""

import numpy as np

from clustering.dbscan import OUTLIER


def mean_direction(rows):
    total = rows.sum(axis=0)
    return total / np.linalg.norm(total)


def relabel_by_density(features, labels, densest):
    """RPNR: the densest images of each cluster form its prototype; clustered images move to the nearest."""
    rows = features.astype(np.float64)
    prototypes = []
    for cluster in range(labels.max() + 1):
        members = [image for image, label in enumerate(labels) if label == cluster]
        density = []
        for image in members:
            cosines = [sum(rows[image] * rows[other]) for other in members]
            density.append(sum(cosine > 0.5 for cosine in cosines) - sum(cosine < 0.5 for cosine in cosines))
        order = sorted(range(len(members)), key=lambda place: (-density[place], members[place]))
        prototypes.append(mean_direction(rows[[members[place] for place in order[:densest]]]))
    moved = [
        int(np.argmax([row @ prototype for prototype in prototypes])) if label != OUTLIER else OUTLIER
        for row, label in zip(rows, labels, strict=True)
    ]
    numbers = sorted(set(moved) - {OUTLIER})
    return np.array([numbers.index(label) if label != OUTLIER else OUTLIER for label in moved])


def assign_outliers(features, labels):
    """An outlier joins the cluster of its nearest prototype if it exceeds the median of that cluster's images."""
    rows = features.astype(np.float64)
    prototypes = [mean_direction(rows[labels == cluster]) for cluster in range(labels.max() + 1)]
    joined = labels.copy()
    for image, label in enumerate(labels):
        if label == OUTLIER:
            nearest = int(np.argmax([rows[image] @ prototype for prototype in prototypes]))
            if rows[image] @ prototypes[nearest] > np.median(rows[labels == nearest] @ prototypes[nearest]):
                joined[image] = nearest
    return joined


def soft_labels(ranks, labels, own, one_hot_share):
    """N-ULC: dense targets and weights."""
    clusters = labels.max() + 1
    targets, weights = np.zeros((len(ranks), clusters)), np.zeros(len(ranks))
    for image, neighbours in enumerate(ranks):
        if own[image] == OUTLIER:
            continue
        votes = [sum(labels[other] == cluster for other in neighbours) for cluster in range(clusters)]
        shares = np.array(
            [
                count / (len(neighbours) - count + sum(labels == cluster)) if count else 0.0
                for cluster, count in enumerate(votes)
            ]
        )
        one_hot = np.eye(clusters)[own[image]]
        if shares.sum() == 0.0:
            targets[image] = one_hot
            continue
        shares /= shares.sum()
        targets[image] = one_hot_share * one_hot + (1.0 - one_hot_share) * shares
        weights[image] = np.exp(-10.0 * (1.0 - shares[own[image]]) ** 2)
    return targets, weights


def sub_prototype_similarity(visible, visible_clusters, infrared, infrared_clusters):
    """The mean cosine to the nearest centre, both ways."""
    similarity = np.zeros((visible_clusters.max() + 1, infrared_clusters.max() + 1))
    for one in range(len(similarity)):
        for two in range(similarity.shape[1]):
            cosines = visible[visible_clusters == one] @ infrared[infrared_clusters == two].T
            similarity[one, two] = (cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2
    return similarity
