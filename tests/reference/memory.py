"""The cluster memory one image and one pair at a time, after CCLNet's public code (momentum update and swapping)."""

import itertools

import torch


def unit(vector):
    return vector / torch.linalg.vector_norm(vector)


def updated(prototypes, features, labels, momentum):
    """M[y] <- normalise(momentum M[y] + (1 - momentum) q), image after image."""
    rows = prototypes.clone()
    for feature, label in zip(features, labels.tolist(), strict=True):
        rows[label] = unit(momentum * rows[label] + (1.0 - momentum) * feature)
    return rows


def updated_by_hardest(prototypes, features, labels, momentum):
    """M[k] <- normalise(momentum M[k] + (1 - momentum) q), q the image of cluster k least similar to M[k] as it was."""
    rows = prototypes.clone()
    for cluster in sorted(set(labels.tolist())):
        own = [feature for feature, label in zip(features, labels.tolist(), strict=True) if label == cluster]
        hardest = min(own, key=lambda feature: float(feature @ prototypes[cluster]))
        rows[cluster] = unit(momentum * prototypes[cluster] + (1.0 - momentum) * hardest)
    return rows


def updated_with_hardest(prototypes, hardest, features, labels, momentum):
    """Of each cluster of a batch: its mean image for the first memory, its image least similar to it for the second."""
    rows, hard = prototypes.clone(), hardest.clone()
    for cluster in sorted(set(labels.tolist())):
        own = [feature for feature, label in zip(features, labels.tolist(), strict=True) if label == cluster]
        farthest = min(own, key=lambda feature: float(feature @ prototypes[cluster]))
        rows[cluster] = unit(momentum * prototypes[cluster] + (1.0 - momentum) * sum(own) / len(own))
        hard[cluster] = unit(momentum * hardest[cluster] + (1.0 - momentum) * farthest)
    return rows, hard


def swapped_as_released(visible, infrared, pairs, visible_batch, infrared_batch, scale):
    """First the visible side of a pair, then the infrared one, which sees what has just been written."""
    visible, infrared = visible.clone(), infrared.clone()
    for a, b in pairs:
        if a in visible_batch:
            visible[a] = unit(scale * visible[a] + (1.0 - scale) * infrared[b])
        if b in infrared_batch:
            infrared[b] = unit(scale * infrared[b] + (1.0 - scale) * visible[a])
    return visible, infrared


def exchanged(visible, infrared, pairs, visible_batch, infrared_batch, scale, trigger):
    """Both sides of a pair from the values that both had before."""
    visible, infrared = visible.clone(), infrared.clone()
    for a, b in pairs:
        members = (a in visible_batch) + (b in infrared_batch)
        if members < (2 if trigger == "both_members" else 1):
            continue
        new_visible = unit(scale * visible[a] + (1.0 - scale) * infrared[b])
        new_infrared = unit(scale * infrared[b] + (1.0 - scale) * visible[a])
        visible[a], infrared[b] = new_visible, new_infrared
    return visible, infrared


def largest_total(similarity):
    """The best total over all one-to-one pairings, by trying them."""
    if similarity.shape[0] > similarity.shape[1]:
        similarity = similarity.T
    rows, columns = similarity.shape
    return max(
        sum(similarity[row, column] for row, column in enumerate(chosen))
        for chosen in itertools.permutations(range(columns), rows)
    )
