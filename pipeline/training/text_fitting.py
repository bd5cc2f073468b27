"""Learning text prototypes on fixed image features: one loop for clusters, people, and the fusion of modalities."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.console import progress
from pipeline.errors import TrainingError

Batch = TypeVar("Batch")


def fit_texts(
    parameters: Sequence[nn.Parameter],
    epochs: int,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[Batch], Float[Tensor, ""]],
    *,
    rate: Callable[[int], float],
    weight_decay: float,
    description: str,
    setting: str,
) -> float:
    """Minimise `loss` over `parameters` by Adam, epoch after epoch; the device is waited for once an epoch.

    `batches` and `rate` give the batches and the learning rate of an epoch, from 1. `weight_decay` also shrinks rows
    that a batch does not touch. `setting` is to be lowered if the loss is not finite. Returns the mean loss of the last
    epoch.

    Raises:
        TrainingError: The loss is not finite.
    """
    optimiser = torch.optim.Adam(parameters, lr=rate(1), weight_decay=weight_decay)
    mean = 0.0
    for epoch in progress(range(1, epochs + 1), description, unit="epochs"):
        for group in optimiser.param_groups:
            group["lr"] = rate(epoch)
        running, steps = torch.zeros((), device=parameters[0].device), 0
        for batch in batches(epoch):
            value = loss(batch)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            running += value.detach()
            steps += 1
        mean = float(running) / steps
        if not torch.isfinite(running):
            raise TrainingError(
                f"the loss of texts is not finite in epoch {epoch}", hint=f"lower {setting}; the last round is kept"
            )
    return mean
