"""Fusion of text features over modalities (CSDN) and of image and text features over views (EEES).

Features are not normalised, neither before nor after. A view is another image of the same person and modality, so
batches must hold a person's images side by side, as `PairedIdentityBatches` does.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

Texts = Float[Tensor, "people embed"]


def drawn_linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A float32 linear map on the CPU, initialised from `generator`: uniform within 1 / sqrt(inputs), as torch does."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


class ResidualFusion(nn.Module):
    """The visible text feature plus a two-layer perceptron of the infrared one.

    In training, dropout (a share in [0, 1)) draws from the generator that torch keeps for the device: seed it inside a
    fork. `generator` initialises the weights, on the CPU.

    Source: nengdong96/CSDN, semantic information integration, whose attention has one key: its weight is always 1, and
    queries and keys are never learned. Differs: they do not exist here, 2.1 million numbers less at width 1024.
    """

    def __init__(self, width: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.value = drawn_linear(width, width, generator)
        self.dropout = _dropout(dropout)
        self.output = drawn_linear(width, width, generator)

    def forward(self, visible_texts: Texts, infrared_texts: Texts) -> Texts:
        """One text feature a person."""
        values = self.dropout(torch.tanh(self.value(infrared_texts)))
        fused: Tensor = visible_texts + self.output(values)
        return fused


class SumFusion(nn.Module):
    """The sum of both text features. It has no weights, so an optimiser must not get its empty list."""

    def forward(self, visible_texts: Texts, infrared_texts: Texts) -> Texts:
        """One text feature a person."""
        return visible_texts + infrared_texts


class ConcatFusion(nn.Module):
    """A linear map of both text features, concatenated, the visible one first; `width` is that of a text feature."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.output = drawn_linear(2 * width, width, generator)

    def forward(self, visible_texts: Texts, infrared_texts: Texts) -> Texts:
        """One text feature a person."""
        fused: Tensor = self.output(torch.cat([visible_texts, infrared_texts], dim=1))
        return fused


class AttentionFusion(nn.Module):
    """The visible text feature plus single-head attention from it to itself and the infrared one.

    Dropout (in training, on the values after their tanh) and arguments as in `ResidualFusion`.

    Source: ours, the attention that nengdong96/CSDN names. Differs: two keys, so that attention can choose.
    """

    def __init__(self, width: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.query = drawn_linear(width, width, generator)
        self.key = drawn_linear(width, width, generator)
        self.value = drawn_linear(width, width, generator)
        self.dropout = _dropout(dropout)
        self.output = drawn_linear(width, width, generator)

    def attention(self, visible_texts: Texts, infrared_texts: Texts) -> Float[Tensor, "people 2"]:
        """Attention weights of the visible and of the infrared text; each row sums to 1."""
        queries = torch.tanh(self.query(visible_texts))
        keys = torch.tanh(self.key(torch.stack([visible_texts, infrared_texts], dim=1)))
        scores = torch.einsum("pe,pte->pt", queries, keys) / math.sqrt(queries.shape[1])
        return scores.softmax(dim=1)

    def forward(self, visible_texts: Texts, infrared_texts: Texts) -> Texts:
        """One text feature a person."""
        values = self.dropout(torch.tanh(self.value(torch.stack([visible_texts, infrared_texts], dim=1))))
        read = torch.einsum("pt,pte->pe", self.attention(visible_texts, infrared_texts), values)
        fused: Tensor = visible_texts + self.output(read)
        return fused


def build_fusion(
    kind: Literal["residual_mlp", "sum", "concat", "attn2"], width: int, dropout: float, generator: torch.Generator
) -> nn.Module:
    """Make a fusion of visible and infrared text features by name, in training mode, in float32, on the CPU.

    "sum" and "concat" ignore `dropout`.
    """
    match kind:
        case "residual_mlp":
            return ResidualFusion(width, dropout, generator)
        case "sum":
            return SumFusion()
        case "concat":
            return ConcatFusion(width, generator)
        case "attn2":
            return AttentionFusion(width, dropout, generator)


def _dropout(share: float) -> nn.Dropout:
    if not 0.0 <= share < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {share}")
    return nn.Dropout(share)


def other_views(positions: Int64[Tensor, " batch"], images_per_person: int) -> Bool[Tensor, "batch views"]:
    """Which images of a person's block are other images than the row's own one; the batch consists of whole blocks.

    >>> other_views(torch.tensor([4, 4, 9]), 3).int().tolist()
    [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    blocks = positions.unflatten(0, (-1, images_per_person))
    views: Tensor = blocks[:, :, None] != blocks[:, None, :]
    return views.flatten(0, 1)


class ViewFusion(nn.Module):
    """Each row plus multi-head attention over the person's other images in the batch.

    A row without another image is returned bit for bit. An image that occurs twice in a block counts twice for the
    others. With `zero_init` the output map starts at 0, so that initially every row is returned unchanged.

    Source: reconstructed. The abstract of Dong et al., 2024 (EEES) fuses views; attention with a residual is that of
    Dong et al., IJCAI 2025 (RSBA). Differs: keys and values have no bias: a key bias has no effect, and the output bias
    covers a value bias.
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
        """The fused rows of images, or of their texts, those of a person adjacent; `positions` are their stored images.

        Cost: Four maps of the batch; attention within blocks only. 0.13 G multiplications for 32 rows of 1024.
        """
        if images_per_person == 1:
            return features
        others = other_views(positions, images_per_person)
        has_others = others.any(dim=1, keepdim=True)
        # A row without others attends to its whole block, so that all is finite; the result is then discarded.
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
    """View fusion of both sides of image-text pairs; both modalities use the same weights.

    `images` may be the same module as `texts`; None leaves images unchanged.
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
        """Fused images and fused texts of one modality; arguments as in `ViewFusion.forward`."""
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
    """Make the view fusion of image-text pairs, in training mode, in float32, on the CPU.

    `kind`: "separate" weights for images and texts, "shared" weights, or "text_only", which leaves images unchanged.
    The generator initialises texts first. Other arguments as in `ViewFusion`.

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
