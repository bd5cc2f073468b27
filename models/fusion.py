"""From a person's two texts, one learned on visible and one on infrared images, to the one text that stands for both.

Every fusion is a module from the two texts to one of the same width; `build_fusion` makes it by name. Texts are not
normalised, neither before nor after.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.linear import drawn_linear


class ResidualFusion(nn.Module):
    """The visible text plus what a perceptron of one hidden layer makes of the infrared one.

    In training, dropout draws from the generator that torch keeps for the device: seed it inside a fork.

    Args:
        width: Of a text.
        dropout: The share of hidden values that training sets to 0; in [0, 1).
        generator: What the first weights are drawn from, on the CPU.

    Raises:
        ValueError: `dropout` is outside its range.

    Source: nengdong96/CSDN, semantic information integration, whose attention has one key: its weight is always 1,
    and queries and keys are never learned. Differs: they do not exist here, 2.1 million numbers less at width 1024.
    """

    def __init__(self, width: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.value = drawn_linear(width, width, generator)
        self.dropout = _dropout(dropout)
        self.output = drawn_linear(width, width, generator)

    def forward(
        self, visible_texts: Float[Tensor, "people embed"], infrared_texts: Float[Tensor, "people embed"]
    ) -> Float[Tensor, "people embed"]:
        """One text a person."""
        values = self.dropout(torch.tanh(self.value(infrared_texts)))
        fused: Tensor = visible_texts + self.output(values)
        return fused


class SumFusion(nn.Module):
    """The sum of both texts. It has no weights, so an optimiser must not be given its empty list."""

    def forward(
        self, visible_texts: Float[Tensor, "people embed"], infrared_texts: Float[Tensor, "people embed"]
    ) -> Float[Tensor, "people embed"]:
        """One text a person."""
        return visible_texts + infrared_texts


class ConcatFusion(nn.Module):
    """A linear map of both texts side by side, the visible one first.

    Args:
        width: Of a text.
        generator: What the first weights are drawn from, on the CPU.
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.output = drawn_linear(2 * width, width, generator)

    def forward(
        self, visible_texts: Float[Tensor, "people embed"], infrared_texts: Float[Tensor, "people embed"]
    ) -> Float[Tensor, "people embed"]:
        """One text a person."""
        fused: Tensor = self.output(torch.cat([visible_texts, infrared_texts], dim=1))
        return fused


class AttentionFusion(nn.Module):
    """The visible text plus what it reads, with one head of attention, out of itself and the infrared text.

    In training, dropout draws from the generator that torch keeps for the device: seed it inside a fork.

    Args:
        width: Of a text.
        dropout: The share of values, after their tanh, that training sets to 0; in [0, 1). Queries and keys stay whole.
        generator: What the first weights are drawn from, on the CPU.

    Raises:
        ValueError: `dropout` is outside its range.

    Source: ours, the attention that nengdong96/CSDN names. Differs: two keys, so that there is something to choose.
    """

    def __init__(self, width: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.query = drawn_linear(width, width, generator)
        self.key = drawn_linear(width, width, generator)
        self.value = drawn_linear(width, width, generator)
        self.dropout = _dropout(dropout)
        self.output = drawn_linear(width, width, generator)

    def attention(
        self, visible_texts: Float[Tensor, "people embed"], infrared_texts: Float[Tensor, "people embed"]
    ) -> Float[Tensor, "people 2"]:
        """How much of the visible and of the infrared text is read; each row sums to 1."""
        queries = torch.tanh(self.query(visible_texts))
        keys = torch.tanh(self.key(torch.stack([visible_texts, infrared_texts], dim=1)))
        scores = torch.einsum("pe,pte->pt", queries, keys) / math.sqrt(queries.shape[1])
        return scores.softmax(dim=1)

    def forward(
        self, visible_texts: Float[Tensor, "people embed"], infrared_texts: Float[Tensor, "people embed"]
    ) -> Float[Tensor, "people embed"]:
        """One text a person."""
        values = self.dropout(torch.tanh(self.value(torch.stack([visible_texts, infrared_texts], dim=1))))
        read = torch.einsum("pt,pte->pe", self.attention(visible_texts, infrared_texts), values)
        fused: Tensor = visible_texts + self.output(read)
        return fused


def build_fusion(
    kind: Literal["residual_mlp", "sum", "concat", "attn2"], width: int, dropout: float, generator: torch.Generator
) -> nn.Module:
    """Make a fusion by its name, in training mode, in float32, on the CPU.

    Args:
        kind: "residual_mlp" is `ResidualFusion`, "sum" `SumFusion`, "concat" `ConcatFusion`, "attn2" `AttentionFusion`.
        width: Of a text, 1 or more.
        dropout: In [0, 1); "sum" and "concat" have nothing to drop and ignore it.
        generator: What the first weights are drawn from, on the CPU: uniform within 1 / sqrt(inputs), as torch's own
            linear layers are.

    Returns:
        A module from visible texts and infrared texts, one row a person, to fused texts of the same shape.

    Raises:
        ValueError: `dropout` is outside its range where it is used.
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
        raise ValueError(f"dropout must lie in [0, 1), got {share}")
    return nn.Dropout(share)
