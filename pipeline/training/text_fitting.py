"""Learning texts on fixed image features: one loop for the words of clusters, the words of people, and their fusion."""

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
    """Minimise a loss by Adam, epoch after epoch; the device is waited for once an epoch.

    Args:
        parameters: What is learned, changed in place.
        epochs: How many passes.
        batches: The batches of an epoch, counted from 1.
        loss: Of a batch.
        rate: The learning rate of an epoch.
        weight_decay: L2 weight; rows that a batch does not touch decay too.
        description: The label of the progress bar.
        setting: What to lower when the loss is not finite.

    Returns:
        Mean loss over the steps of the last epoch.

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
