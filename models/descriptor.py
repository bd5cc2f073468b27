"""What images are searched by: features of one or several heads, of the image alone or of its mirror image as well."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality

Flip = Literal["none", "mean", "concat"]

Images = Float[Tensor, "batch 3 height width"]


def describe_images(
    encode: Callable[[Images], Encoded], images: Images, *, heads: Sequence[Head], flip: Flip
) -> Float[Tensor, "batch dim"]:
    """Turn images into the vectors that they are searched by.

    Neck features come as unit rows, those of another head alone as they are; of several heads side by side each has
    unit length, as in CSDN's descriptor.

    Args:
        encode: From normalised images to features of all `heads`.
        images: Normalised.
        heads: Which features, side by side in this order.
        flip: What mirrored images add: nothing; `mean`: both features are averaged; `concat`: they stand side by side.
            Neck features alone are brought back to unit length. Either doubles the cost.
    """
    heads = tuple(heads)

    def features_of(batch: Tensor) -> Tensor:
        encoded = encode(batch)
        parts = [getattr(encoded, head.value).float() for head in heads]
        if heads == (Head.NECK,) or len(heads) > 1:
            parts = [_unit(part) for part in parts]
        return torch.cat(parts, dim=1)

    features = features_of(images)
    if flip == "none":
        return features
    mirrored = features_of(images.flip(3))
    both = (features + mirrored) / 2 if flip == "mean" else torch.cat([features, mirrored], dim=1)
    return _unit(both) if heads == (Head.NECK,) else both


class Descriptor(nn.Module):
    """One modality's way through an encoder, from normalised images to the vectors that they are searched by.

    Args:
        encoder: Shared with whoever else uses it.
        modality: Whose stem is used.
        heads: As for `describe_images`.
        flip: Likewise.
    """

    def __init__(self, encoder: DualStemEncoder, modality: Modality, heads: Sequence[Head], flip: Flip) -> None:
        super().__init__()
        self.encoder = encoder
        self.modality = modality
        self.heads = tuple(heads)
        self.flip: Flip = flip

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """The vectors of images of the encoder's size."""
        return describe_images(
            lambda batch: self.encoder.encode(batch, self.modality, heads=frozenset(self.heads)),
            images,
            heads=self.heads,
            flip=self.flip,
        )


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows, dim=1, eps=1e-12)
