"""Descriptors for retrieval: features of one or several heads, of the image alone or with its mirror image."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import Modality
from models.rows import normalise_rows

Flip = Literal["none", "mean", "concat"]

Images = Float[Tensor, "batch 3 height width"]


def describe_images(
    encode: Callable[[Images], Encoded], images: Images, *, heads: Sequence[Head], flip: Flip
) -> Float[Tensor, "batch dim"]:
    """Compute the descriptors of normalised images: the features of `heads`, concatenated in this order.

    Neck features are unit rows; another head alone is not normalised; of several concatenated heads each has unit
    length, as in CSDN's descriptor. `flip` averages ("mean") or concatenates the features of the mirrored images, at
    twice the cost; neck features alone are normalised again.
    """
    heads = tuple(heads)

    def features_of(batch: Tensor) -> Tensor:
        encoded = encode(batch)
        parts = [getattr(encoded, head.value).float() for head in heads]
        if heads == (Head.NECK,) or len(heads) > 1:
            parts = [normalise_rows(part) for part in parts]
        return torch.cat(parts, dim=1)

    features = features_of(images)
    if flip == "none":
        return features
    mirrored = features_of(images.flip(3))
    both = (features + mirrored) / 2 if flip == "mean" else torch.cat([features, mirrored], dim=1)
    return normalise_rows(both) if heads == (Head.NECK,) else both


class Descriptor(nn.Module):
    """An encoder, which may be shared, with one modality's stem: from normalised images to `describe_images`."""

    def __init__(self, encoder: DualStemEncoder, modality: Modality, heads: Sequence[Head], flip: Flip) -> None:
        super().__init__()
        self.encoder = encoder
        self.modality = modality
        self.heads = tuple(heads)
        self.flip: Flip = flip

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Descriptors of images of the encoder's size."""
        return describe_images(
            lambda batch: self.encoder.encode(batch, self.modality, heads=frozenset(self.heads)),
            images,
            heads=self.heads,
            flip=self.flip,
        )
