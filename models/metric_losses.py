"""Losses on the Euclidean distances inside a batch of labelled people: tensors in, a scalar out, no state.

Features are not normalised. Distances are sums of squared differences, never the expansion into inner products, by
which two copies of one image would differ by rounding, in reduced precision by much.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

_SMALLEST_DISTANCE = 1e-6
_SMALLEST_SUM = 1e-6


def weighted_triplet(
    features: Float[Tensor, "batch dim"], labels: Int64[Tensor, " batch"], weights: Literal["stable", "released"]
) -> Float[Tensor, ""]:
    """Weighted regularisation triplet on features before normalisation, without a margin.

    "stable" weights are a softmax over the positives' distances (the anchor included) and one over the negated
    distances to the negatives. "released" adds 1e-6 to both denominators and does not shift the second softmax;
    negatives beyond a distance of about 14 then lose their weight: 88 of them at distance 20 count as if at 3, at
    distance 30 as if at 0.

    Returns:
        Mean over the anchors of log(1 + exp(near - far)), above 0; in a batch of one person `far` is 0.

    Cost: `batch` squared times `dim` operations: 26 ms with its gradient for 96 features of 2048 on one CPU core. The
    CPU keeps `batch` squared numbers; CUDA's backward pass `dim` times as many for a moment, then 75 MB.

    Source: Ye et al., TPAMI 2022 (AGW), weighted regularisation triplet; nengdong96/CSDN for "released".
    Differs: large differences of `near` and `far` do not overflow, and coincident images have distance 1e-6 exactly.
    """
    distances = euclidean_distances(features, features)
    own = labels[:, None] == labels[None, :]
    match weights:
        case "stable":
            pull, push = _masked_softmax(distances, own), _masked_softmax(-distances, ~own)
        case "released":
            pull, push = _released_softmax(distances, own), _released_softmax(-distances, ~own)
    near, far = (distances * pull).sum(dim=1), (distances * push).sum(dim=1)
    return -functional.logsigmoid(far - near).mean()


def modality_gap(
    visible: Float[Tensor, "visible dim"],
    infrared: Float[Tensor, "infrared dim"],
    labels_visible: Int64[Tensor, " visible"],
    labels_infrared: Int64[Tensor, " infrared"],
) -> Float[Tensor, ""]:
    """Modality-shared enhancement loss (MSEL): equal mean distances to a person's images within and across modalities.

    Equal copies of the features do not give 0: an image's own copy has distance 0 across modalities, but the image
    itself is not counted within its own.

    Returns:
        Half the sum over the modalities of the mean squared difference between an image's two mean distances. An image
        that lacks one of them is excluded, but may be a positive of others; a modality without such an image adds 0.

    Cost: As `weighted_triplet` over all images, less one quarter.

    Source: Lu et al., AAAI 2023 (PMT), modality-shared enhancement loss; nengdong96/CSDN.
    Differs: any number of images a person. The image itself is masked out; the source drops the smallest distance.
    """
    across = euclidean_distances(visible, infrared)
    shared = labels_visible[:, None] == labels_infrared[None, :]
    visible_gap = gap_consistency(
        euclidean_distances(visible, visible), across, _relatives(labels_visible), shared, detach="none"
    )
    infrared_gap = gap_consistency(
        euclidean_distances(infrared, infrared), across.T, _relatives(labels_infrared), shared.T, detach="none"
    )
    return (visible_gap + infrared_gap) / 2


def gap_consistency(
    within: Float[Tensor, "rows own"],
    across: Float[Tensor, "rows other"],
    own_positives: Bool[Tensor, "rows own"],
    other_positives: Bool[Tensor, "rows other"],
    *,
    detach: Literal["none", "intra"],
) -> Float[Tensor, ""]:
    """Mean squared difference of a row's mean distances to its positives within and across modalities.

    Rows without a positive on both sides are excluded; 0 without any other. `detach="intra"` stops the gradient through
    the distances within.
    """
    valid = own_positives.any(dim=1) & other_positives.any(dim=1)
    intra = _masked_mean(within, own_positives)
    gaps = _masked_mean(across, other_positives) - (intra.detach() if detach == "intra" else intra)
    return (gaps.square() * valid).sum() / valid.sum().clamp(min=1)


def euclidean_distances(
    rows: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"]
) -> Float[Tensor, "rows others"]:
    """The distance of every row to every other one, at least 1e-6.

    Below that the gradient is 0, so that it is finite for coincident rows.
    """
    distances = torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.clamp(min=_SMALLEST_DISTANCE)


def _relatives(labels: Int64[Tensor, " rows"]) -> Bool[Tensor, "rows rows"]:
    return (labels[:, None] == labels[None, :]).fill_diagonal_(False)


def _masked_mean(values: Float[Tensor, "rows others"], mask: Bool[Tensor, "rows others"]) -> Float[Tensor, " rows"]:
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _masked_softmax(
    scores: Float[Tensor, "rows others"], mask: Bool[Tensor, "rows others"]
) -> Float[Tensor, "rows others"]:
    # With minus infinity an empty row would be 0/0; so it becomes uniform, and the mask clears it.
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1) * mask


def _released_softmax(
    scores: Float[Tensor, "rows others"], mask: Bool[Tensor, "rows others"]
) -> Float[Tensor, "rows others"]:
    # Masked scores are 0, so that negative scores are never shifted: the anchor's own place is the maximum.
    kept = scores * mask
    powers = torch.exp(kept - kept.amax(dim=1, keepdim=True)) * mask
    return powers / (powers.sum(dim=1, keepdim=True) + _SMALLEST_SUM)
