"""Batch norm whose training statistics are exact for channels-last maps on a CPU, where torch's are not."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from models.batch_norm import follow_statistics, replaced

_ROWS = 128
"""Cells that are added one after the other, at most. 64 to 256 cost and err much the same."""


def make_batch_norms_exact(module: nn.Module) -> None:
    """Replace every `torch.nn.BatchNorm2d` inside `module` by an `ExactBatchNorm2d`; parameters and names stay."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, replaced(child, ExactBatchNorm2d))
        else:
            make_batch_norms_exact(child)


class ExactBatchNorm2d(nn.BatchNorm2d):
    """Torch's batch norm; mean and variance of float32 maps on a CPU err by about 1e-7 and not by up to 1e-3.

    For maps that are channels-last in memory torch adds all cells of a channel in float32, one after the other. Here
    short pieces are added so (torch's own kernel takes each piece for a channel of its own), and then the pieces.
    Everything else (evaluation, GPUs, other types, `torch.compile`) is torch's, and so is the backward pass: with exact
    statistics gradients err as in torch's ordinary layout.

    Cost: A forward and backward pass of the demo network takes 3 to 5 % longer than with torch's batch norm
    (`benchmarks/batch_norms.py`).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise each channel of maps (batch, channels, rows, columns)."""  # plain types: torch.compile reads them
        usual = self.affine and self.track_running_stats and self.momentum is not None
        if not (self.training and usual and _is_inexact(input, self.weight)):
            return super().forward(input)
        output, mean, variance = _ExactBatchNorm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        cells = input.numel() // self.num_features
        follow_statistics(self, mean, variance * (cells / (cells - 1)))
        normalised: Tensor = output
        return normalised


def _is_inexact(maps: Tensor, weight: Tensor) -> bool:
    return (
        maps.device.type == "cpu"
        and maps.dtype == weight.dtype == torch.float32
        and maps.is_contiguous(memory_format=torch.channels_last)
        and maps.numel() > maps.shape[1]
        and not torch.compiler.is_compiling()
    )


class _ExactBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        channels = maps.shape[1]
        rows = _largest_divisor(maps.numel() // channels)
        pieces = maps.permute(0, 2, 3, 1).view(rows, -1)  # no copy: a column is `rows` cells of one channel
        means, variances = torch.batch_norm_update_stats(pieces, None, None, 0.0)
        between, mean = torch.var_mean(means.view(-1, channels), 0, correction=0)
        variance = variances.view(-1, channels).mean(0) + between
        ctx.save_for_backward(maps, weight, mean, torch.rsqrt(variance + eps))
        ctx.mark_non_differentiable(mean, variance)
        output, _, _ = torch.native_batch_norm(maps, weight, bias, mean, variance, False, 0.0, eps)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, inverse = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        wanted = list(ctx.needs_input_grad[:3])
        found: tuple[Tensor | None, ...] = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, None, None, mean, inverse, True, 0.0, wanted
        )
        return *found, None


@cache
def _largest_divisor(cells: int) -> int:
    return next(rows for rows in range(min(_ROWS, cells), 0, -1) if cells % rows == 0)
