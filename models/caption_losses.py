"""Losses on images and their captions: tensors in, a scalar out, no state.

Every image has one caption, and visible and infrared rows show the same people in the same order: one vector of labels
serves both. `texts` are text features of captions.

All forms are reconstructed from the abstract of Dong et al., 2024 (EEES), and from related papers, named at each.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from models.losses import text_contrast
from models.metric_losses import euclidean_distances, gap_consistency
from models.modality import PerModality
from models.rows import normalise_rows

Rows = PerModality[Float[Tensor, "batch dim"]]


def caption_contrast(
    images: Rows,
    texts: Rows,
    labels: Int64[Tensor, " batch"],
    *,
    temperature: float,
    similarity: Literal["cosine", "raw"],
    target: Literal["identity", "instance"],
) -> Float[Tensor, ""]:
    """Contrast images with the texts of their captions within a modality, in both directions.

    "cosine" similarities are divided by `temperature`, "raw" inner products are not. Positives (`target`) are the rows
    of the same person, or of the same image only.

    Source: reconstructed. Contrast with all texts of a person is that of Li et al., AAAI 2023 (CLIP-ReID).
    """
    wanted = labels if target == "identity" else torch.arange(len(labels), device=labels.device)
    if similarity == "cosine":
        images, texts = images.map(normalise_rows), texts.map(normalise_rows)
    divisor = temperature if similarity == "cosine" else 1.0
    losses = images.map_with(
        lambda rows, others: (
            text_contrast(rows, others, wanted, wanted, temperature=divisor)
            + text_contrast(others, rows, wanted, wanted, temperature=divisor)
        ),
        texts,
    )
    return (losses.visible + losses.infrared) / 2


def feature_distillation(
    student: Float[Tensor, "batch dim"], teacher: Float[Tensor, "batch dim"], *, detach: bool
) -> Float[Tensor, ""]:
    """Mean squared distance, from 0 to 4, of normalised rows of single views to the same rows after fusion.

    A row that fusion returned unchanged adds nothing. `detach` stops the gradient through the teacher.

    Source: reconstructed. The form is that of LCR2S (ACM MM 2023), known second hand.
    """
    taken = teacher.detach() if detach else teacher
    return (normalise_rows(student) - normalise_rows(taken)).square().sum(dim=1).mean()


def relation_distillation(
    student: Float[Tensor, "batch batch"],
    teacher: Float[Tensor, "batch batch"],
    taught: Bool[Tensor, " batch"],
    *,
    detach: bool,
) -> Float[Tensor, ""]:
    """Mean squared difference of image-text cosines of single views to those after fusion.

    Rows and columns of images without another view (not `taught`) count as 0. `detach` stops the gradient through the
    teacher.

    Source: reconstructed. The form is that of LCR2S (ACM MM 2023), known second hand. Differs: images without another
    view are excluded.
    """
    taken = teacher.detach() if detach else teacher
    return ((student - taken).square() * (taught[:, None] & taught[None, :])).mean()


def caption_gap(
    images: Rows,
    texts: Rows,
    labels: Int64[Tensor, " batch"],
    *,
    distance: Literal["euclid", "one_minus_cos"],
    detach: Literal["none", "intra"],
) -> Float[Tensor, ""]:
    """MSEL on captions: equal mean distances of an image to its person's texts of either modality.

    Distances are between normalised rows, the image's own text included. `detach="intra"` stops the gradient through
    distances within a modality. The loss is half the sum over the modalities of the mean squared difference of an
    image's two mean distances.

    Source: reconstructed. The aim is that of the abstract; the form is the modality-shared enhancement loss of Lu et
    al., AAAI 2023 (PMT), between images and texts.
    """
    shared = labels[:, None] == labels[None, :]
    units = texts.map(normalise_rows)

    def distances(rows: Tensor, others: Tensor) -> Tensor:
        return euclidean_distances(rows, others) if distance == "euclid" else 1 - rows @ others.T

    gaps = images.map(normalise_rows).map_with(
        lambda rows, own, other: gap_consistency(
            distances(rows, own), distances(rows, other), shared, shared, detach=detach
        ),
        units,
        _exchanged(units),
    )
    return (gaps.visible + gaps.infrared) / 2


def caption_association(images: Rows, texts: Rows, images_per_person: int) -> Float[Tensor, ""]:
    """Equalise two mean cosines: image to a person's texts, and the image's text to that person's other-modality texts.

    Rows of a person are adjacent. The loss is half the sum over the modalities of the mean squared difference over
    images and people.

    Source: reconstructed after Dong et al., IJCAI 2025 (RSBA).
    """

    def to_people(rows: Tensor, others: Tensor) -> Tensor:
        people: Tensor = cosine_similarities(rows, others).unflatten(1, (-1, images_per_person))
        return people.mean(dim=2)

    gaps = images.map_with(
        lambda rows, own, other: (to_people(rows, own) - to_people(own, other)).square().mean(),
        texts,
        _exchanged(texts),
    )
    return (gaps.visible + gaps.infrared) / 2


def cosine_similarities(
    rows: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"]
) -> Float[Tensor, "rows others"]:
    """The cosine of every row with every other one."""
    return normalise_rows(rows) @ normalise_rows(others).T


def _exchanged(value: Rows) -> Rows:
    return PerModality.build(lambda modality: value[modality.other])
