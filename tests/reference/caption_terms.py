"""EEES's terms on captions written out from single views to fused ones; pairs hold a visible and an infrared set."""

import torch

from tests.reference import caption_losses
from tests.reference.losses import smoothed_cross_entropy
from tests.reference.view_fusion import fused_views


def fused_pairs(images, texts, positions, kind, parameters, images_per_person, heads):
    """`parameters` of the fusions of "images" and "texts" by name."""

    def fuse(rows, at, which):
        return fused_views(parameters[which], rows, at, images_per_person, heads)

    of_images = {"separate": "images", "shared": "texts", "text_only": None}[kind]
    return (
        [rows if of_images is None else fuse(rows, at, of_images) for rows, at in zip(images, positions, strict=True)],
        [fuse(rows, at, "texts") for rows, at in zip(texts, positions, strict=True)],
    )


def has_another_view(positions, images_per_person):
    """For each row, whether its block shows any other image."""
    shown = positions.tolist()
    taught = []
    for i, position in enumerate(shown):
        start = i - i % images_per_person
        taught.append(any(other != position for other in shown[start : start + images_per_person]))
    return taught


def distillation(alone, fused, positions, images_per_person, kind, detach):
    total = 0.0
    for images, texts, fused_images, fused_texts, at in zip(*alone, *fused, positions, strict=True):
        if detach:
            fused_images, fused_texts = fused_images.detach(), fused_texts.detach()
        if kind != "relation":
            total = total + caption_losses.feature_distillation(images, fused_images)
        if kind != "feature":
            taught = has_another_view(at, images_per_person)
            total = total + caption_losses.relation_distillation((images, texts), (fused_images, fused_texts), taught)
    return total


def normalised(rows, scale, bias):
    """Each column by its own mean and variance."""
    columns = []
    for values, factor, offset in zip(rows.T, scale, bias, strict=True):
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        columns.append((values - mean) / torch.sqrt(variance + 1e-5) * factor + offset)
    return torch.stack(columns, dim=1)


def caption_terms(images, texts, positions, labels, weights, fusion, neck, people, images_per_person):
    """`fusion` is kind, parameters and heads, `neck` scale and bias, `people` the rows of the classifier."""
    kind, parameters, heads = fusion
    alone = images, texts
    fused = fused_pairs(images, texts, positions, kind, parameters, images_per_person, heads)

    def contrast(pairs, target):
        return caption_losses.contrast(*pairs, labels, weights.temperature, weights.alignment_similarity, target)

    terms = {
        "alignment": weights.alignment_weight * contrast(alone, weights.alignment_target),
        "views": weights.views_weight * contrast(fused, "identity"),
    }
    if weights.distillation != "off":
        loss = distillation(
            alone, fused, positions, images_per_person, weights.distillation, weights.distillation_detach
        )
        terms["distillation"] = weights.views_weight * weights.distillation_weight * loss
    if weights.fused_identity:
        logits = normalised(torch.cat(fused[0]), *neck) @ people.T
        everyone = torch.cat([labels, labels])
        terms["fused_identity"] = weights.views_weight * smoothed_cross_entropy(logits, everyone, 0.0)
    pairs = fused if weights.purification_level == "fused" else alone
    if weights.purification == "msel":
        loss = caption_losses.gap(*pairs, labels, weights.purification_distance, weights.purification_detach)
        terms["purification"] = weights.purification_weight * loss
    if weights.purification == "csia":
        terms["purification"] = weights.purification_weight * caption_losses.association(*pairs, labels)
    return terms
