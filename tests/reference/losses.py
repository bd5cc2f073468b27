"""Losses written out sum by sum, in float64; gradients come from differentiating these sums."""

import torch


def supervised_contrast(anchors, targets, anchor_labels, target_labels, temperature=1.0):
    """Khosla et al., NeurIPS 2020, mean over positives outside the logarithm; anchors without one are left out."""
    terms = []
    for anchor, label in zip(anchors, anchor_labels.tolist(), strict=True):
        similarities = [(anchor * target).sum() / temperature for target in targets]
        positives = [s for s, other in zip(similarities, target_labels.tolist(), strict=True) if other == label]
        if positives:
            total = sum(torch.exp(s) for s in similarities)
            terms.append(torch.log(total) - sum(positives) / len(positives))
    return sum(terms) / len(terms) if terms else (anchors.sum() + targets.sum()) * 0.0


def smoothed_cross_entropy(logits, labels, smoothing):
    """Cross entropy with the target (1 - smoothing) one-hot + smoothing / classes; rows with label -1 are left out."""
    terms = []
    classes = logits.shape[1]
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label == -1:
            continue
        log_total = torch.log(sum(torch.exp(value) for value in row))
        term = 0.0
        for column, value in enumerate(row):
            target = smoothing / classes + (1.0 - smoothing) * (column == label)
            term = term + target * (log_total - value)
        terms.append(term)
    return sum(terms) / len(terms) if terms else logits.sum() * 0.0


def share_contrast(logits, clusters, shares):
    """Shares of the negative log probabilities of some prototypes, summed over these, mean over the rows."""
    terms = []
    for row, own, parts in zip(logits, clusters, shares, strict=True):
        log_total = torch.log(sum(torch.exp(value) for value in row))
        terms.append(sum(part * (log_total - row[int(one)]) for one, part in zip(own, parts, strict=True)))
    return sum(terms) / len(terms)


def cross_contrast(logits, partners, weights):
    """Mean over the rows with a partner of weighted negative log probabilities."""
    terms = []
    for row, partner, weight in zip(logits, partners.tolist(), weights, strict=True):
        if partner != -1:
            terms.append(weight * (torch.log(sum(torch.exp(value) for value in row)) - row[partner]))
    return sum(terms) / len(terms) if terms else logits.sum() * 0.0


def unified_contrast(own, other, clusters, shares, partners, weights, excluded):
    """One softmax over both memories, in which the partner counts its weight and some columns are missing; own
    prototypes count their shares, the partner its weight times the sum of the shares."""
    terms = []
    for row in range(len(own)):
        both, partner, weight = [*own[row], *other[row]], int(partners[row]), weights[row]
        mine = [(one, share) for one, share in zip(clusters[row].tolist(), shares[row], strict=True) if share > 0]
        counted = [0.0 if column in excluded[row].tolist() else 1.0 for column in range(len(both))]
        if partner != -1:
            counted[own.shape[1] + partner] = weight
        for one, _ in mine:
            counted[one] = 1.0
        total = torch.log(sum(count * torch.exp(value) for count, value in zip(counted, both, strict=True)))
        term, mass = sum(share * (total - own[row, one]) for one, share in mine), 1.0
        if partner != -1:
            term, mass = term + shares[row].sum() * weight * (total - other[row, partner]), 1.0 + weight
        terms.append(term / mass)
    return sum(terms) / len(terms)


def camera_contrast(logits, own, clusters, num_negatives):
    """CAP, AAAI 2021: every proxy of the image's cluster in another camera against the nearest of other clusters."""
    per_image = []
    for row, proxy in zip(logits, own.tolist(), strict=True):
        if proxy == -1:
            continue
        cluster = int(clusters[proxy])
        others = [row[column] for column in range(len(row)) if int(clusters[column]) != cluster]
        nearest = sorted(others, key=lambda one: float(one.detach()), reverse=True)[:num_negatives]
        positives = [row[column] for column in range(len(row)) if int(clusters[column]) == cluster and column != proxy]
        terms = [torch.log(torch.exp(one) + sum(torch.exp(other) for other in nearest)) - one for one in positives]
        if terms:
            per_image.append(sum(terms) / len(terms))
    return sum(per_image) / len(per_image) if per_image else logits.sum() * 0.0


def hard_prototype_contrast(features, memory, hardest, labels, temperature, margin):
    """PCLHD, NeurIPS 2024: half of what the contrast with `memory` exceeds the margin by, and half of the other one."""
    first = smoothed_cross_entropy(features @ memory.T / temperature, labels, 0.0)
    second = smoothed_cross_entropy(features @ hardest.T / temperature, labels, 0.0)
    return 0.5 * ((first - margin) * (first > margin) + second)


def cross_text(images, texts, partners, weights, smoothing, scale=None):
    """Smoothed cross entropy over the other modality's texts, weighted; the mean counts rows with a partner only."""
    terms = []
    for image, partner, weight in zip(images, partners.tolist(), weights.tolist(), strict=True):
        if partner != -1:
            lengths = [1.0 if scale is None else torch.sqrt(image.square().sum() * one.square().sum()) for one in texts]
            dots = [(image * one).sum() * (scale or 1.0) / length for one, length in zip(texts, lengths, strict=True)]
            only = smoothed_cross_entropy(torch.stack(dots)[None], torch.tensor([partner]), smoothing)
            terms.append(weight * only)
    return sum(terms) / len(terms) if terms else images.sum() * 0.0


def distillation(first, second, prototypes, temperature):
    """Mean over the images and over both directions of the divergence of one view from the other, the teacher, whose
    temperature is half as large; teachers are constants."""
    terms = []
    for student, teacher in [*zip(first, second, strict=True), *zip(second, first, strict=True)]:
        wanted = torch.softmax(torch.stack([(teacher * one).sum() / (temperature / 2) for one in prototypes]), 0)
        found = torch.softmax(torch.stack([(student * one).sum() / temperature for one in prototypes]), 0)
        wanted = wanted.detach()
        terms.append(sum(w * (torch.log(w) - torch.log(f)) for w, f in zip(wanted, found, strict=True)))
    return sum(terms) / len(terms)
