"""What is minimised, one function a loss: tensors in, a scalar out, no state.

Every loss is the mean over the rows that have something to be compared with. Without such a row it is 0 and still part
of the graph, so that `backward` runs and gives zeros. Similarities are expected in float32: only the encoder is run in
half precision.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

IGNORED = -1


def prototype_contrast(logits: Float[Tensor, "batch clusters"], labels: Int64[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Pull each image to its cluster's prototype and away from all other prototypes of its modality.

    With a single cluster the loss and its gradient are exactly 0: nothing is learned, and nothing fails.

    Args:
        logits: Similarities to the prototypes divided by the temperature, as `PrototypeMemory.logits` gives them.
        labels: The cluster of each image, in [0, clusters), or -1 to leave a row out. A larger label is not looked for
            here, because that would stall a GPU at every step.

    Returns:
        Mean cross entropy of the rows with a label, at least 0.

    Source: Chen et al., ACM MM 2023 (CCLNet), contrast with the cluster memory.
    """
    return _mean_cross_entropy(logits, labels, smoothing=0.0)


def text_classification(
    logits: Float[Tensor, "batch texts"], labels: Int64[Tensor, " batch"], smoothing: float = 0.1
) -> Float[Tensor, ""]:
    """Classify images by the texts of the clusters that the prompts were learned on.

    The labels are those of the prompts, not of this round's clustering: an image may have a cluster now and no text.

    Args:
        logits: Inner products of image and text features, neither normalised nor scaled.
        labels: The row of each image's own text, or -1 to leave the image out.
        smoothing: The share of the target that is spread over all texts, the right one among them; in [0, 1).

    Returns:
        Mean smoothed cross entropy of the images with a text; 0 if none has one.

    Source: Chen et al., ACM MM 2023 (CCLNet), and Li et al., AAAI 2023 (CLIP-ReID), image-to-text cross entropy.
    Differs: a batch without any text gives 0, where the framework's mean would be 0/0.
    """
    return _mean_cross_entropy(logits, labels, smoothing)


def text_contrast(
    anchors: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "others dim"],
    anchor_labels: Int64[Tensor, " batch"],
    target_labels: Int64[Tensor, " others"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Pull each anchor to all targets of its label at once, away from the rest: supervised contrast across two sets.

    Features are compared as they are, not normalised. Called with images and texts, then with texts and images, it
    gives the two directions of prompt learning; `prompt_contrast` computes both with fewer texts.

    Args:
        anchors: One feature an anchor.
        targets: One feature a target.
        anchor_labels: An anchor whose label no target has is left out; outliers have been dropped before.
        target_labels: Labels of the targets.
        temperature: Divides the inner products; positive.

    Returns:
        Mean over the anchors of log-sum-exp of all similarities minus the mean similarity to the positives.

    Source: Khosla et al., NeurIPS 2020, supervised contrastive loss with the mean outside the logarithm; used on
    images and texts by Li et al., AAAI 2023 (CLIP-ReID). Differs: an anchor without a positive is left out, where a
    division by the number of positives would be 0/0.
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
    """Both directions of prompt learning, image to text plus text to image, with each distinct text encoded once.

    The value and both gradients are those of `text_contrast(features, t, y, y) + text_contrast(t, features, y, y)`
    with one text a sample, `t = texts[index]` and `y = index`: a text that stands for several samples counts so often.

    Args:
        features: One image feature a sample, not normalised.
        texts: The texts of the batch's distinct clusters, not normalised; a text without a sample counts for nothing.
        index: The row of `texts` that describes each sample.

    Returns:
        Sum of the two means, at least 0; exactly 0 for a batch of one sample.

    Cost:
        One `batch x texts` product instead of two `batch x batch` ones; the saving is in the text encoder, which sees
        each cluster once.
    """
    similarities = features @ texts.T
    counts = similarities.new_zeros(texts.shape[0]).index_add(0, index, similarities.new_ones(index.shape[0]))
    own = similarities.gather(1, index[:, None]).squeeze(1)
    # A text that stands for c samples takes part c times in each image's sum: adding log c to it says the same.
    image_to_text = (torch.logsumexp(similarities + counts.log(), dim=1) - own).mean()
    # As an anchor it is met c times, too; over its images the mean of `own` weighs each image once, as this mean does.
    text_to_image = (torch.logsumexp(similarities, dim=0) * counts).sum() / index.shape[0] - own.mean()
    return image_to_text + text_to_image


def _mean_cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"], smoothing: float
) -> Float[Tensor, ""]:
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
