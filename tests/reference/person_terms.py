"""CSDN's losses of a step written out term by term, over thirds of a batch: first views, second views, infrared."""

import torch

from tests.reference.losses import smoothed_cross_entropy, supervised_contrast
from tests.reference.metric_losses import modality_gap, weighted_triplet


def thirds(rows):
    count = len(rows) // 3
    return rows[:count], rows[count : 2 * count], rows[2 * count :]


def classification(rows, people, labels):
    """Cross entropy of inner products with one row a person."""
    logits = torch.stack([torch.stack([(row * person).sum() for person in people]) for row in rows])
    return smoothed_cross_entropy(logits, labels, 0.0)


def person_terms(features, neck_weights, projection_weights, texts, labels, weights):
    """Yu et al., IEEE TMM 2025, high-level semantic embedding; `features` by head, `labels` those of one third.

    `texts` are a visible and an infrared set: fused ones twice, or the own ones of each modality.
    """
    everyone = torch.cat([labels, labels, labels])
    pooled, projection = features["pooled"], features["projection"]
    first, second, infrared = thirds(projection)
    pooled_first, _, pooled_infrared = thirds(pooled)
    by_neck = classification(features["neck"], neck_weights, everyone)
    by_projection = classification(features["projection_neck"], projection_weights, everyone)
    triplet = weighted_triplet(pooled, everyone, weights.triplet_softmax)
    triplet = triplet + weighted_triplet(projection, everyone, weights.triplet_softmax)
    gap = modality_gap(pooled_first, pooled_infrared, labels, labels) + modality_gap(first, infrared, labels, labels)
    visible_texts, infrared_texts = texts
    visible_text = classification(first, visible_texts, labels)
    if weights.text_on_second_view:
        visible_text = visible_text + classification(second, visible_texts, labels)
    return {
        "identity": by_neck + by_projection,
        "triplet": weights.triplet_weight * triplet,
        "gap": weights.gap_weight * gap,
        "visible_text": weights.visible_text_weight * visible_text,
        "infrared_text": weights.infrared_text_weight * classification(infrared, infrared_texts, labels),
    }


def prompt_loss(images, texts, labels, positives):
    """Both directions of contrast over the union of the modalities, or of each modality apart.

    `images` and `texts` hold a visible and an infrared set, each in the order of `labels`.
    """
    if positives == "per_modality":
        return sum(both_ways(x, t, labels) for x, t in zip(images, texts, strict=True))
    return both_ways(torch.cat([*images]), torch.cat([*texts]), torch.cat([labels, labels]))


def both_ways(images, texts, labels):
    return supervised_contrast(images, texts, labels, labels) + supervised_contrast(texts, images, labels, labels)
