"""Batch norm over the batches of all ranks, as if they were one batch."""

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

Norm = TypeVar("Norm", bound=_BatchNorm)


def synchronise_batch_norms(module: nn.Module, device: torch.device) -> None:
    """Synchronise the statistics of every batch norm inside `module` across ranks, in place; its state stays.

    On a GPU these are torch's own, which run on GPUs only.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            replacement = (
                nn.SyncBatchNorm.convert_sync_batchnorm(child)
                if device.type == "cuda"
                else replaced(child, SharedBatchNorm)
            )
            setattr(module, name, replacement)
        else:
            synchronise_batch_norms(child, device)


class SharedBatchNorm(_BatchNorm):
    """Batch norm with the mean and variance over the batches of all ranks.

    Evaluation mode is that of `torch.nn.BatchNorm2d`. In training the running variance is unbiased, as there.

    Cost: Two small messages a forward pass and two a backward pass.
    """

    def forward(self, input: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:  # noqa: A002 - torch's name
        """Normalise each channel."""
        if not self.training:
            return super().forward(input)
        channels = [0, *range(2, input.dim())]
        sums = torch.cat([input.sum(channels), input.new_tensor([input.numel() / input.shape[1]])])
        sums = _over_processes(sums)
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        shape = (1, -1, *(1 for _ in input.shape[2:]))
        # The variance around the common mean, in a second message: a mean of squares would lose digits.
        centred = input - mean.view(shape)
        variance = _over_processes(centred.square().sum(channels)) / count
        follow_statistics(self, mean.detach(), (variance * count / (count - 1)).detach())
        output: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        return output * self.weight.view(shape) + self.bias.view(shape) if self.affine else output

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Accept any number of dimensions."""


def follow_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics of `norm` towards those of a batch: its mean and unbiased variance."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)


def replaced(norm: _BatchNorm, kind: type[Norm]) -> Norm:
    """Return a batch norm of another kind with the parameters, buffers and mode of `norm`."""
    replacement = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    # The parameters themselves, not copies: an optimiser may hold them already.
    for name, parameter in norm.named_parameters():
        setattr(replacement, name, parameter)
    for name, buffer in norm.named_buffers():
        setattr(replacement, name, buffer)
    replacement.training = norm.training
    return replacement


def _over_processes(values: Tensor) -> Tensor:
    if not distributed.is_initialized():
        return values
    summed: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return summed


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all ranks; the gradient is summed over all ranks as well."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
