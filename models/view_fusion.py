"""Views of a person fused: each image, or each text, plus what it reads out of the person's others in the batch.

A view is another image of the same person and modality, so batches have to hold a person's images side by side, as
`PairedIdentityBatches` does. Features are not normalised, neither before nor after.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from models.linear import drawn_linear


def other_views(positions: Int64[Tensor, " batch"], images_per_person: int) -> Bool[Tensor, "batch views"]:
    """Which of the images of a person's block are other images than the row's own one.

    Args:
        positions: Which stored image each row shows; equal positions are the same image, and no view of each other.
        images_per_person: How many rows a block has; the batch is made of whole blocks.

    >>> other_views(torch.tensor([4, 4, 9]), 3).int().tolist()
    [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    blocks = positions.unflatten(0, (-1, images_per_person))
    views: Tensor = blocks[:, :, None] != blocks[:, None, :]
    return views.flatten(0, 1)


class ViewFusion(nn.Module):
    """Each row plus what it reads, with several heads of attention, out of the person's other images in the batch.

    A row without another image is given back bit for bit: a softmax over nothing is never asked for. An image that a
    block holds twice is read twice by the others.

    Args:
        width: Of a row, a multiple of `heads`.
        heads: How many heads the attention has.
        zero_init: Whether the output map starts at 0, so that at first every row is given back.
        generator: What the first weights are drawn from, on the CPU.

    Raises:
        ValueError: `width` is no multiple of `heads`.

    Source: reconstructed. That views are fused is said in the abstract of Dong et al., 2024 (EEES); attention with a
    residual is that of Dong et al., IJCAI 2025 (RSBA). Differs: keys and values have no bias. One of the keys would
    change nothing, one of the values nothing that the output's cannot.
    """

    def __init__(self, width: int, heads: int, zero_init: bool, generator: torch.Generator) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads of attention do not divide a width of {width}")
        self.heads = heads
        self.query = drawn_linear(width, width, generator)
        self.key = drawn_linear(width, width, generator, bias=False)
        self.value = drawn_linear(width, width, generator, bias=False)
        self.output = drawn_linear(width, width, generator)
        if zero_init:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(
        self, features: Float[Tensor, "batch width"], positions: Int64[Tensor, " batch"], images_per_person: int
    ) -> Float[Tensor, "batch width"]:
        """The fused rows.

        Args:
            features: Of images, or of their texts; those of a person stand together.
            positions: Which stored image each row shows or describes.
            images_per_person: How many rows a person has in the batch.

        Cost:
            Four maps of the batch; what is compared is a block with itself. 0.13 G multiplications for 32 rows of 1024.
        """
        if images_per_person == 1:
            return features
        others = other_views(positions, images_per_person)
        has_others = others.any(dim=1, keepdim=True)
        # A row without others reads its whole block, so that all is finite; what it read is then dropped.
        readable = (others | ~has_others).unflatten(0, (-1, images_per_person))
        query, key, value = (
            part(features).unflatten(1, (self.heads, -1)).unflatten(0, (-1, images_per_person))
            for part in (self.query, self.key, self.value)
        )
        scores = torch.einsum("pihw,pjhw->phij", query, key) / math.sqrt(query.shape[-1])
        shares = scores.masked_fill(~readable[:, None], -math.inf).softmax(dim=-1)
        read = torch.einsum("phij,pjhw->pihw", shares, value).flatten(0, 1).flatten(1)
        return torch.where(has_others, features + self.output(read), features)


class PairViewFusion(nn.Module):
    """Views fused on both sides of image-text pairs; visible and infrared pairs go through the same weights.

    Args:
        texts: What fuses texts.
        images: What fuses images, which may be the same module; None leaves them as they are.
    """

    def __init__(self, texts: ViewFusion, images: ViewFusion | None) -> None:
        super().__init__()
        self.texts = texts
        self.images = images

    def forward(
        self,
        images: Float[Tensor, "batch width"],
        texts: Float[Tensor, "batch width"],
        positions: Int64[Tensor, " batch"],
        images_per_person: int,
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, "batch width"]]:
        """Fused images and fused texts of one modality.

        Args:
            images: Features of images, those of a person together.
            texts: Of the text of each image.
            positions: Which stored image each row shows.
            images_per_person: How many rows a person has in the batch.
        """
        fused_images: Tensor = images if self.images is None else self.images(images, positions, images_per_person)
        fused_texts: Tensor = self.texts(texts, positions, images_per_person)
        return fused_images, fused_texts


def build_view_fusion(
    kind: Literal["separate", "shared", "text_only"],
    width: int,
    *,
    heads: int,
    zero_init: bool,
    generator: torch.Generator,
) -> PairViewFusion:
    """Make what fuses the views of image-text pairs, in training mode, in float32, on the CPU.

    Args:
        kind: "separate": images and texts have weights of their own. "shared": the same ones. "text_only": images stay.
        width: Of images and texts alike, a multiple of `heads`.
        heads: Of each attention.
        zero_init: Whether at first everything is given back.
        generator: What the first weights are drawn from, on the CPU: those of texts, then those of images.

    Raises:
        ValueError: `width` is no multiple of `heads`.

    Source: reconstructed. "text_only" is the form of Dong et al., IJCAI 2025 (RSBA).
    """
    texts = ViewFusion(width, heads, zero_init, generator)
    match kind:
        case "separate":
            return PairViewFusion(texts, ViewFusion(width, heads, zero_init, generator))
        case "shared":
            return PairViewFusion(texts, texts)
        case "text_only":
            return PairViewFusion(texts, None)
