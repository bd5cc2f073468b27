"""Distance losses written out pair by pair, in float64; gradients come from differentiating these sums."""

import torch


def distance(a, b):
    """Euclidean, the squared distance held at 1e-12 or more before the root."""
    return torch.sqrt(((a - b) ** 2).sum().clamp(min=1e-12))


def weighted_triplet(features, labels, weights):
    """Ye et al., TPAMI 2022, weighted regularisation triplet; "released" follows its public code row by row."""
    labels = labels.tolist()
    terms = []
    for anchor, label in zip(features, labels, strict=True):
        distances = [distance(anchor, other) for other in features]
        own = [other == label for other in labels]
        average = {"stable": exact_average, "released": released_average}[weights]
        near = average(distances, own, sign=1.0)
        far = average(distances, [not mine for mine in own], sign=-1.0)
        terms.append(torch.log1p(torch.exp(near - far)))
    return sum(terms) / len(terms)


def exact_average(distances, chosen, sign):
    kept = [d for d, is_chosen in zip(distances, chosen, strict=True) if is_chosen]
    total = sum(torch.exp(sign * d) for d in kept)
    return sum(d * torch.exp(sign * d) / total for d in kept)


def released_average(distances, chosen, sign):
    """The row keeps a 0 wherever a distance does not count, and its maximum is taken over these zeros, too."""
    row = [sign * d * is_chosen for d, is_chosen in zip(distances, chosen, strict=True)]
    largest = torch.stack(row).amax()
    powers = [torch.exp(value - largest) * is_chosen for value, is_chosen in zip(row, chosen, strict=True)]
    total = sum(powers) + 1e-6
    return sum(d * power / total for d, power in zip(distances, powers, strict=True))


def modality_gap(visible, infrared, labels_visible, labels_infrared):
    """PMT, AAAI 2023, modality-shared enhancement loss, for any numbers of images; incomplete rows are left out."""
    sides = [(visible, labels_visible, infrared, labels_infrared), (infrared, labels_infrared, visible, labels_visible)]
    total = (visible.sum() + infrared.sum()) * 0.0
    for rows, labels, others, other_labels in sides:
        gaps = []
        for i, label in enumerate(labels.tolist()):
            within = [
                distance(rows[i], rows[j]) for j, other in enumerate(labels.tolist()) if other == label and j != i
            ]
            across = [distance(rows[i], others[j]) for j, other in enumerate(other_labels.tolist()) if other == label]
            if within and across:
                gaps.append((sum(across) / len(across) - sum(within) / len(within)) ** 2)
        if gaps:
            total = total + sum(gaps) / len(gaps) / 2
    return total


def modality_gap_in_blocks(visible, infrared, images_per_person):
    """The same for a batch that holds the images of each person next to each other, equally many of each modality.

    Of the distances inside a block the one to itself is subtracted.
    """
    size = images_per_person
    total = 0.0
    for rows, others in [(visible, infrared), (infrared, visible)]:
        gaps = []
        for start in range(0, len(rows), size):
            block = range(start, start + size)
            for i in block:
                within = sum(distance(rows[i], rows[j]) for j in block) - distance(rows[i], rows[i])
                across = sum(distance(rows[i], others[j]) for j in block)
                gaps.append((across / size - within / (size - 1)) ** 2)
        total = total + sum(gaps) / len(gaps) / 2
    return total


def modality_gap_by_largest(visible, infrared, images_per_person):
    """nengdong96/CSDN: in each block the largest distances but one, in place of all but the image itself."""
    size = images_per_person
    total = 0.0
    for rows, others in [(visible, infrared), (infrared, visible)]:
        gaps = []
        for start in range(0, len(rows), size):
            block = range(start, start + size)
            for i in block:
                within = torch.stack([distance(rows[i], rows[j]) for j in block]).sort(descending=True).values
                across = torch.stack([distance(rows[i], others[j]) for j in block])
                gaps.append((across.mean() - within[: size - 1].mean()) ** 2)
        total = total + sum(gaps) / len(gaps) / 2
    return total
