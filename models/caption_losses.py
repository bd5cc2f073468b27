"""Losses on images and their captions: tensors in, a scalar out, no state.

Every image has one text, and visible and infrared rows show the same people in the same order: one vector of labels
names both. Where lengths must not matter, features are normalised here.

All forms are reconstructed from the abstract of Dong et al., 2024 (EEES), and from sibling papers; each says which.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from models.losses import text_contrast
from models.metric_losses import euclidean_distances, gap_consistency
from models.modality import PerModality

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
    """Pull images and texts of a modality together, in both directions.

    Args:
        images: One row an image.
        texts: The text of each image.
        labels: The person of each row.
        temperature: Divides cosines; positive. Raw inner products are taken as they are.
        similarity: "cosine" compares directions, "raw" also lengths.
        target: What an image and a text share that belong together: the person, or the image itself.

    Returns:
        Sum over the modalities of the mean of both directions, at least 0.

    Source: reconstructed. Contrast with all texts of a person is that of Li et al., AAAI 2023 (CLIP-ReID).
    """
    wanted = labels if target == "identity" else torch.arange(len(labels), device=labels.device)
    if similarity == "cosine":
        images, texts = images.map(_unit), texts.map(_unit)
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
    """Turn each row towards what fusion made of it.

    Args:
        student: Rows of single views.
        teacher: The same rows, fused; a row that fusion gave back adds nothing.
        detach: Whether the teacher stays as it is: it then gets no gradient.

    Returns:
        Mean squared distance of the normalised rows, between 0 and 4.

    Source: reconstructed. The form is that of LCR2S (ACM MM 2023), known second hand.
    """
    taken = teacher.detach() if detach else teacher
    return (_unit(student) - _unit(taken)).square().sum(dim=1).mean()


def relation_distillation(
    student: Float[Tensor, "batch batch"],
    teacher: Float[Tensor, "batch batch"],
    taught: Bool[Tensor, " batch"],
    *,
    detach: bool,
) -> Float[Tensor, ""]:
    """Make similarities of single images and texts those of fused ones.

    Args:
        student: Cosine of each image with each text.
        teacher: The same after fusion.
        taught: Which images have another view. Rows and columns of the others count as 0: nothing was fused there.
        detach: Whether the teacher stays as it is: it then gets no gradient.

    Returns:
        Mean over all pairs of the squared difference.

    Source: reconstructed. The form is that of LCR2S (ACM MM 2023), known second hand. Differs: images without another
    view are left out.
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
    """Make a person's texts of the other modality as far from an image as those of its own.

    An image's own text counts among those of its modality.

    Args:
        images: One row an image.
        texts: The text of each image.
        labels: The person of each row.
        distance: Between normalised rows.
        detach: "intra" takes distances inside a modality for granted; "none" moves both.

    Returns:
        Half the sum over the modalities of the mean squared difference of an image's two mean distances.

    Source: reconstructed. The aim is that of the abstract; the form is the modality-shared enhancement loss of Lu et
    al., AAAI 2023 (PMT), between images and texts.
    """
    shared = labels[:, None] == labels[None, :]
    units = texts.map(_unit)

    def distances(rows: Tensor, others: Tensor) -> Tensor:
        return euclidean_distances(rows, others) if distance == "euclid" else 1 - rows @ others.T

    gaps = images.map(_unit).map_with(
        lambda rows, own, other: gap_consistency(
            distances(rows, own), distances(rows, other), shared, shared, detach=detach
        ),
        units,
        _exchanged(units),
    )
    return (gaps.visible + gaps.infrared) / 2


def caption_association(images: Rows, texts: Rows, images_per_person: int) -> Float[Tensor, ""]:
    """Make an image as similar to a person's texts as its own text is to that person's texts of the other modality.

    Args:
        images: One row an image; those of a person stand together.
        texts: The text of each image.
        images_per_person: How many rows a person has.

    Returns:
        Half the sum over the modalities of the mean squared difference, over images and people, of the two mean
        cosines.

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
    return _unit(rows) @ _unit(others).T


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows, dim=1)


def _exchanged(value: Rows) -> Rows:
    return PerModality.build(lambda modality: value[modality.other])
