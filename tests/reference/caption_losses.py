"""Losses on images and captions written out anchor by anchor, in float64; pairs hold a visible and an infrared set."""

import torch

from tests.reference.losses import supervised_contrast
from tests.reference.metric_losses import distance


def unit(row):
    return row / torch.sqrt((row**2).sum())


def cosine(a, b):
    return (unit(a) * unit(b)).sum()


def contrast(images, texts, labels, temperature, similarity, target):
    """Half of both directions of supervised contrast, for each modality."""
    wanted = labels if target == "identity" else torch.arange(len(labels))
    total = 0.0
    for rows, others in zip(images, texts, strict=True):
        if similarity == "cosine":
            rows, others = (torch.stack([unit(row) for row in some]) for some in (rows, others))
        divisor = temperature if similarity == "cosine" else 1.0
        there = supervised_contrast(rows, others, wanted, wanted, divisor)
        back = supervised_contrast(others, rows, wanted, wanted, divisor)
        total = total + (there + back) / 2
    return total


def feature_distillation(student, teacher):
    terms = [((unit(row) - unit(fused)) ** 2).sum() for row, fused in zip(student, teacher, strict=True)]
    return sum(terms) / len(terms)


def relation_distillation(pairs, fused_pairs, taught):
    """Of the cosines of all images with all texts; images that were not taught, and their texts, add nothing."""
    images, texts = pairs
    fused_images, fused_texts = fused_pairs
    total = (images.sum() + texts.sum()) * 0.0
    for i in range(len(images)):
        for j in range(len(texts)):
            if taught[i] and taught[j]:
                total = total + (cosine(images[i], texts[j]) - cosine(fused_images[i], fused_texts[j])) ** 2
    return total / len(images) ** 2


def gap(images, texts, labels, kind, detach):
    """Mean distances of an image to its person's texts of the other modality and of its own, itself among them."""
    measure = {"euclid": lambda a, b: distance(unit(a), unit(b)), "one_minus_cos": lambda a, b: 1 - cosine(a, b)}[kind]
    total = 0.0
    for rows, own, other in [(images[0], texts[0], texts[1]), (images[1], texts[1], texts[0])]:
        gaps = []
        for row, label in zip(rows, labels.tolist(), strict=True):
            same = [k for k, person in enumerate(labels.tolist()) if person == label]
            intra = sum(measure(row, own[k]) for k in same) / len(same)
            inter = sum(measure(row, other[k]) for k in same) / len(same)
            gaps.append((inter - (intra.detach() if detach == "intra" else intra)) ** 2)
        total = total + sum(gaps) / len(gaps) / 2
    return total


def association(images, texts, labels):
    """An image's mean cosine with each person's texts against its text's with that person's texts of the other."""
    people = sorted(set(labels.tolist()))
    total = 0.0
    for rows, own, other in [(images[0], texts[0], texts[1]), (images[1], texts[1], texts[0])]:
        terms = []
        for i in range(len(rows)):
            for person in people:
                members = [k for k, label in enumerate(labels.tolist()) if label == person]
                to_own = sum(cosine(rows[i], own[k]) for k in members) / len(members)
                to_other = sum(cosine(own[i], other[k]) for k in members) / len(members)
                terms.append((to_own - to_other) ** 2)
        total = total + sum(terms) / len(terms) / 2
    return total
