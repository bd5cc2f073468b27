"""The image encoder: one stem for each modality, one shared trunk, and several feature heads."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.clip import LoadedClip
from models.exact_batch_norm import make_batch_norms_exact
from models.imagenet import plain_stem, plain_trunk
from models.modality import Modality, PerModality
from models.rows import normalise_rows
from models.trunks import (
    AttentionPool,
    GeneralisedMean,
    VisionTransformerTrunk,
    patch_grid,
    patch_projection,
    resnet_grid,
    resnet_stem,
    resnet_trunk,
)

Flip = Literal["none", "mean", "concat"]
Images = Float[Tensor, "batch 3 height width"]


class Head(StrEnum):
    """A feature of the encoder; only requested ones are computed."""

    NECK = "neck"
    """After the batch-norm neck: used for clustering, memories and retrieval."""
    PROJECTION = "projection"
    """In CLIP's joint image-text space."""
    POOLED = "pooled"
    """Before the neck."""
    PROJECTION_NECK = "projection_neck"
    """The projection after its own batch norm, in supervised training."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of one batch, `None` for a head that was not requested; not normalised."""

    neck: Float[Tensor, "batch width"] | None
    projection: Float[Tensor, "batch embed"] | None
    pooled: Float[Tensor, "batch width"] | None
    projection_neck: Float[Tensor, "batch embed"] | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> "Encoded":
        """Apply `change` to every computed feature."""
        features = (self.neck, self.projection, self.pooled, self.projection_neck)
        return Encoded(*(None if one is None else change(one) for one in features))


def encoder_widths(clip: LoadedClip) -> tuple[int, int]:
    """Widths of an encoder's pooled feature and of its projection (0 without text), read from the image tower."""
    visual: Any = clip.model.get_submodule("visual")
    if hasattr(visual, "class_embedding"):
        pooled, projected = visual.proj.shape
    elif hasattr(visual, "attnpool"):
        pooled, projected = visual.attnpool.c_proj.in_features, visual.attnpool.c_proj.out_features
    else:
        pooled, projected = visual.fc.in_features, 0
    return pooled, projected


class DualStemEncoder(nn.Module):
    """CLIP's image tower with a stem for each modality; everything after the stems is shared.

    `forward` passes both modalities through the trunk as one batch, so that in training the shared batch norms see the
    mixture; `encode` passes one. The trunk may run under autocast; the heads compute in the precision of their weights.
    `projection` is None for a network without a text tower; `image_size` is height and width in pixels.

    Source: CzAngus/CCLNet, the model of the SYSU-MM01 release.
    Differs: the second copy of CLIP is reduced to its stem, the attention pool runs on demand and for one token, and
    all ResNets and vision transformers of open_clip are supported.
    """

    def __init__(
        self,
        stems: PerModality[nn.Module],
        trunk: nn.Module,
        pool: nn.Module,
        projection: nn.Module | None,
        neck: nn.BatchNorm1d,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.stems = nn.ModuleDict({modality.value: stem for modality, stem in stems.items()})
        self.trunk = trunk
        self.pool = pool
        self.projection = projection
        self.neck = neck
        self.projection_neck: nn.Module = nn.Identity()
        """Replaced in supervised training."""
        self.image_size = image_size

    @classmethod
    def from_clip(
        cls, clip: LoadedClip, *, image_height: int, image_width: int, gem_power: float = 3.0
    ) -> "DualStemEncoder":
        """Copy the image tower of an open_clip ResNet or vision transformer, or torchvision's ResNet-50.

        The stems start equal; the neck starts as the identity, its bias frozen at 0. The encoder is in evaluation mode.
        `gem_power` is that of the generalised mean over a ResNet's last map; a vision transformer pools by its own
        rule.

        Raises:
            ValueError: Another image tower, or an image too small for a single cell of the last map.
        """
        visual: Any = clip.model.get_submodule("visual")
        is_transformer = hasattr(visual, "class_embedding")
        if not is_transformer and not hasattr(visual, "layer4"):
            raise ValueError(
                f"{clip.origin.model} has an image tower of type {type(visual).__name__}; a ResNet or ViT is needed"
            )
        image_size = image_height, image_width
        grid = patch_grid(visual, *image_size) if is_transformer else resnet_grid(*image_size)
        if 0 in grid:
            raise ValueError(f"images of {image_height} x {image_width} pixels are too small for {clip.origin.model}")
        stems: PerModality[nn.Module]
        trunk: nn.Module
        pool: nn.Module
        projection: nn.Module | None
        if is_transformer:
            stems = PerModality.build(lambda _: copy.deepcopy(visual.conv1))
            trunk, pool, projection = VisionTransformerTrunk(visual, grid), nn.Identity(), patch_projection(visual)
        elif hasattr(visual, "attnpool"):
            stems = PerModality.build(lambda _: resnet_stem(visual))
            trunk, pool = resnet_trunk(visual), GeneralisedMean(gem_power)
            projection = AttentionPool(visual.attnpool, grid)
        else:
            stems = PerModality.build(lambda _: plain_stem(visual))
            trunk, pool, projection = plain_trunk(visual), GeneralisedMean(gem_power), None
        neck = nn.BatchNorm1d(encoder_widths(clip)[0])
        neck.bias.requires_grad_(False)
        encoder = cls(stems, trunk, pool, projection, neck, image_size).eval()
        # Convolutions are 1.6 times as fast, on a CPU too (width 16, 96 x 48 pixels).
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
        make_batch_norms_exact(encoder)
        return encoder

    def compile_network(self) -> None:
        """Compile stems and trunk with torch.compile at first use; names and values of weights stay."""
        for stem in self.stems.values():
            stem.compile()
        self.trunk.compile()

    @property
    def feature_width(self) -> int:
        """Width of the neck and pooled features."""
        return self.neck.num_features

    @property
    def projection_width(self) -> int:
        """Width of the projection and of CLIP's text features; 0 for a network without a text tower."""
        if self.projection is None:
            return 0
        last: Any = self.projection.c_proj if isinstance(self.projection, AttentionPool) else self.projection
        width: int = last.out_features
        return width

    def encode(self, images: Images, modality: Modality, *, heads: frozenset[Head]) -> Encoded:
        """Features of normalised images, of the encoder's size, of one modality.

        Cost: RN50 at 288 x 144 pixels: 5.9 G multiplications an image, 0.04 G more for the projection.
        """
        return self._read_out(self.trunk(self._stem(images, modality)), heads)

    def forward(self, images: PerModality[Images], heads: frozenset[Head]) -> PerModality[Encoded]:
        """Features of both modalities in one pass through the trunk, visible images first."""
        stems = PerModality.build(lambda modality: self._stem(images[modality], modality))
        encoded = self._read_out(self.trunk(torch.cat([stems.visible, stems.infrared])), heads)
        num_visible = len(images.visible)
        return PerModality(encoded.each(lambda rows: rows[:num_visible]), encoded.each(lambda rows: rows[num_visible:]))

    @staticmethod
    def parameter_role(name: str) -> str:
        """The part that a parameter belongs to: `stem`, `trunk`, `pool`, `attention_pool`, `neck` or `projection_neck`.

        `attention_pool` is used by the projection only: without that head these parameters get no gradient.

        >>> DualStemEncoder.parameter_role("stems.infrared.conv1.weight")
        'stem'
        """
        part = name.partition(".")[0]
        return {"stems": "stem", "projection": "attention_pool"}.get(part, part)

    def _stem(self, images: Tensor, modality: Modality) -> Tensor:
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(
                f"{modality} images of {images.shape[-2]} x {images.shape[-1]} pixels for an encoder of "
                f"{self.image_size[0]} x {self.image_size[1]}"
            )
        output: Tensor = self.stems[modality.value](images)
        return output

    def _read_out(self, output: Tensor, heads: frozenset[Head]) -> Encoded:
        with torch.autocast(output.device.type, enabled=False):
            output = output.to(self.neck.weight.dtype)
            projection = None
            if heads & {Head.PROJECTION, Head.PROJECTION_NECK}:
                assert self.projection is not None, "this network has no text tower"
                projection = self.projection(output)
            pooled = self.pool(output) if heads & {Head.POOLED, Head.NECK} else None
            neck = self.neck(pooled) if Head.NECK in heads else None
            projection_neck = self.projection_neck(projection) if Head.PROJECTION_NECK in heads else None
        return Encoded(
            neck=neck,
            projection=projection if Head.PROJECTION in heads else None,
            pooled=pooled if Head.POOLED in heads else None,
            projection_neck=projection_neck,
        )


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

    def forward(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Descriptors of images of the encoder's size."""
        return describe_images(
            lambda batch: self.encoder.encode(batch, self.modality, heads=frozenset(self.heads)),
            images,
            heads=self.heads,
            flip=self.flip,
        )
