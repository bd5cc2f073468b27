"""Losses: tensors in, a scalar out, no state.

Every loss is the mean over the rows that can be compared; without any it is 0 and still part of the graph. Similarities
must be float32: only the encoder runs in half precision.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

IGNORED = -1


def prototype_contrast(logits: Float[Tensor, "batch clusters"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Mean cross entropy over the prototypes of a modality; label -1 excludes a row.

    With a single cluster the loss and its gradient are exactly 0. Labels beyond the clusters are not checked, because
    that would stall a GPU at every step.

    Source: Chen et al., ACM MM 2023 (CCLNet), contrast with the cluster memory.
    """
    return _mean_cross_entropy(logits, labels, smoothing=0.0)


def share_contrast(
    logits: Float[Tensor, "batch clusters"], clusters: Int64[Tensor, "batch some"], shares: Float[Tensor, "batch some"]
) -> Float[Tensor, ""]:
    """Mean cross entropy with soft targets: each row has `shares` of some `clusters`, which sum to the row's weight.

    A share of 0 is padding, whatever its cluster. With one share of 1 a row, it is `prototype_contrast`.
    """
    scores = torch.log_softmax(logits, dim=1)
    return -(shares * scores.gather(1, clusters)).sum(dim=1).mean()


def cross_contrast(
    logits: Float[Tensor, "batch clusters"], partners: Int64[Tensor, " batch"], weights: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Weighted mean cross entropy over the prototypes of the other modality; partner -1 excludes a row.

    Source: Wu and Ye, CVPR 2023 (PGM), alternate cross contrast. Differs: both directions in every round.
    """
    losses = functional.cross_entropy(logits, partners, ignore_index=IGNORED, reduction="none")
    return (weights * losses).sum() / (partners != IGNORED).sum().clamp(min=1)


def unified_contrast(
    own: Float[Tensor, "batch clusters"],
    other: Float[Tensor, "batch others"],
    clusters: Int64[Tensor, "batch some"],
    shares: Float[Tensor, "batch some"],
    partners: Int64[Tensor, " batch"],
    weights: Float[Tensor, " batch"],
    excluded: Int64[Tensor, "batch left"],
) -> Float[Tensor, ""]:
    """Contrast of images with the prototypes of both modalities in one softmax.

    Positives are the image's own `clusters` with `shares`, as in `share_contrast`, and its partner in the other
    modality, unless `partners` is -1, with `weights`, in [0, 1], times the sum of the shares. The partner is in the
    denominator with its weight, so that a doubted one neither attracts nor repels. Columns `excluded` of both memories,
    own ones first, are neither positive nor negative, unless they are positive; -1 is padding.

    Returns:
        Mean over the rows of the weighted mean of the positives' negative log probabilities.

    Source: unified contrast of PoSeD, ACM MM 2026 (formula). Differs: excluded columns, and weights.
    """
    logits = torch.cat([own, other], dim=1)
    width, paired = logits.shape[1], partners != IGNORED
    weight = torch.where(paired, weights, 0.0)[:, None].to(logits.dtype)
    column = torch.where(paired, own.shape[1] + partners, width)[:, None]
    counted = logits.new_ones(len(logits), width + 1)  # the last column takes what is padding
    counted = counted.scatter(1, torch.where(excluded == IGNORED, width, excluded), 0.0).scatter(1, column, weight)
    counted = counted.scatter_reduce(1, clusters, (shares > 0).to(logits.dtype), "amax")[:, :width]
    total = torch.logsumexp(logits + counted.log(), dim=1, keepdim=True)
    of_own = (shares * (total - own.gather(1, clusters))).sum(dim=1, keepdim=True)
    of_partner = weight * (total - logits.gather(1, column.clamp(max=width - 1)))
    return ((of_own + shares.sum(dim=1, keepdim=True) * of_partner) / (1.0 + weight)).mean()


def camera_contrast(
    logits: Float[Tensor, "batch proxies"],
    own: Int64[Tensor, " batch"],
    clusters: Int64[Tensor, " proxies"],
    num_negatives: int,
) -> Float[Tensor, ""]:
    """Contrast of images with the proxies of their cluster in other cameras.

    `own` is the proxy of an image's cluster and camera, -1 excludes the row; `clusters` is the cluster of each proxy.
    Each positive is compared with the `num_negatives` most similar proxies of other clusters, and with nothing else.

    Returns:
        Mean over the images with a proxy in another camera of the mean over these proxies.

    Source: Wang et al., AAAI 2021 (CAP), inter-camera loss, and its released code. Differs: an image's own camera is no
    positive, positives are not in each other's denominators, and images without a positive do not count in the mean.
    """
    same = clusters == clusters[own.clamp(min=0)][:, None]
    columns = torch.arange(len(clusters), device=clusters.device)
    positive = same & (columns != own[:, None]) & (own[:, None] != IGNORED)
    others = logits.masked_fill(same, torch.finfo(logits.dtype).min)  # minus infinity has no gradient in a sum of none
    nearest = others.topk(min(num_negatives, len(clusters)), dim=1).values
    losses = torch.logaddexp(torch.logsumexp(nearest, dim=1, keepdim=True), logits) - logits
    counts = positive.sum(dim=1)
    per_image = (losses * positive).sum(dim=1) / counts.clamp(min=1)
    return per_image.sum() / (counts > 0).sum().clamp(min=1)


def text_classification(
    logits: Float[Tensor, "batch texts"],
    labels: Int64[Tensor, " batch"],
    smoothing: float = 0.1,
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Mean smoothed cross entropy over the text prototypes of the clusters that the prompts were learned on.

    The labels are those of the prompts, not of this round's clustering: a clustered image may have no text prototype,
    label -1. Logits are inner products, neither normalised nor scaled; `smoothing` is spread over all prototypes, and
    `weights` scale the rows' losses, by default 1.

    Source: Chen et al., ACM MM 2023 (CCLNet), and Li et al., AAAI 2023 (CLIP-ReID), image-to-text cross entropy.
    Differs: a batch without any label gives 0, where the framework's mean would be 0/0.
    """
    if weights is None:
        return _mean_cross_entropy(logits, labels, smoothing)
    losses = functional.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none")
    return (weights * losses).sum() / (labels != IGNORED).sum().clamp(min=1)


def text_contrast(
    anchors: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "others dim"],
    anchor_labels: Int64[Tensor, " batch"],
    target_labels: Int64[Tensor, " others"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Supervised contrast of anchors with targets: all targets of an anchor's label are positives.

    Features are not normalised; inner products are divided by `temperature`. An anchor without a positive is excluded.
    Called with images and texts, then with texts and images, it gives the two directions of prompt learning;
    `prompt_contrast` computes both with fewer texts.

    Returns:
        Mean over the anchors of log-sum-exp of all similarities minus the mean similarity to the positives.

    Source: Khosla et al., NeurIPS 2020, supervised contrastive loss with the mean outside the logarithm; used on images
    and texts by Li et al., AAAI 2023 (CLIP-ReID). Differs: an anchor without a positive would give 0/0 there.
    """
    similarities = anchors @ targets.T / temperature
    positive = anchor_labels[:, None] == target_labels[None, :]
    num_positives = positive.sum(dim=1)
    attraction = (similarities * positive).sum(dim=1) / num_positives.clamp(min=1)
    per_anchor = torch.logsumexp(similarities, dim=1) - attraction
    valid = num_positives > 0
    return (per_anchor * valid).sum() / valid.sum().clamp(min=1)


def prompt_contrast(
    features: Float[Tensor, "batch dim"], texts: Float[Tensor, "texts dim"], index: Int64[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Image-to-text plus text-to-image contrast of prompt learning, with each distinct text encoded once.

    The value and both gradients are those of `text_contrast(features, t, y, y) + text_contrast(t, features, y, y)` with
    one text a sample, `t = texts[index]` and `y = index`: a text of several samples counts as often, one without is
    ignored. Features are not normalised. The loss is exactly 0 for a batch of one sample.

    Cost: One `batch x texts` product instead of two `batch x batch` ones; the text encoder computes each cluster once.
    """
    similarities = features @ texts.T
    counts = similarities.new_zeros(texts.shape[0]).index_add(0, index, similarities.new_ones(index.shape[0]))
    own = similarities.gather(1, index[:, None]).squeeze(1)
    # A text of c samples occurs c times in each image's sum: equivalent to adding log c.
    image_to_text = (torch.logsumexp(similarities + counts.log(), dim=1) - own).mean()
    # As an anchor it also occurs c times; the mean of `own` over its images weighs each image once, as this mean does.
    text_to_image = (torch.logsumexp(similarities, dim=0) * counts).sum() / index.shape[0] - own.mean()
    return image_to_text + text_to_image


def _mean_cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"], smoothing: float
) -> Float[Tensor, ""]:
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
