"""Linear maps whose first weights are drawn from a generator, not from torch's global one."""

import math

import torch
from torch import nn


def drawn_linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear map in float32 on the CPU, its numbers uniform within 1 / sqrt(inputs), as torch's own are.

    Args:
        inputs: Width of what it takes.
        outputs: Width of what it gives.
        generator: What the weights are drawn from, then the bias; on the CPU.
        bias: Whether there is one.
    """
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = 1 / math.sqrt(inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
