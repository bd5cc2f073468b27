"""The encoder as the steps of an epoch use it: gradients where they are needed, averaged over processes, in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.encoder import DualStemEncoder, Head
from models.modality import PerModality
from models.precision import Precision, network_precision
from pipeline.errors import TrainingError
from pipeline.runtime.device import largest_fitting
from pipeline.runtime.distributed import Processes


@contextmanager
def gradients_of(encoder: DualStemEncoder, optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Ask for gradients of what the optimiser trains, and of nothing else; processes wait for each such gradient."""
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    left_out = [p for p in encoder.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in left_out:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in left_out:
            parameter.requires_grad_(True)


def joined_network(encoder: DualStemEncoder, device: torch.device, processes: Processes) -> nn.Module:
    """The encoder with gradients averaged over the processes."""
    if processes.count == 1:
        return encoder
    return DistributedDataParallel(
        encoder, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def too_large(
    encoder: DualStemEncoder,
    heads: frozenset[Head],
    *,
    groups: PerModality[int],
    images_per_group: int,
    setting: str,
    precision: Precision,
    device: torch.device,
    processes: Processes,
) -> TrainingError:
    """Find out which batch fits, with the passes of a step over black images; the run is over anyway.

    Args:
        encoder: Its gradients are lost.
        heads: What a step computes.
        groups: Clusters or people of each modality in a batch.
        images_per_group: As many of each did not fit.
        setting: What decides this number.
        precision: In which the network computes.
        device: Where the encoder is.
        processes: Who shares the batch.
    """

    def attempt(fewer: int) -> None:
        counts = groups.map(lambda count: max(1, count * fewer // processes.count))
        images = counts.map(lambda count: torch.zeros(count, 3, *encoder.image_size, device=device))
        with network_precision(precision, device):
            encoded = encoder(images, heads)
        parts = [part.sum() for one in encoded for part in (one.neck, one.projection) if part is not None]
        torch.stack(parts).sum().backward()
        encoder.zero_grad(set_to_none=True)

    encoder.zero_grad(set_to_none=True)
    encoder.eval()  # as large, and batch norms do not wait for processes that still have memory
    fitting = largest_fitting(attempt, images_per_group)
    asked = groups.map(lambda count: count * images_per_group)
    return TrainingError(
        f"{device} has too little memory to train on {asked.visible} visible and {asked.infrared} infrared images at "
        "once; the last finished round is kept",
        hint=f"{fitting} instead of {images_per_group} fit: --set {setting}={fitting} starts a new run"
        if fitting
        else f"{setting} = 1 is too much already: show fewer at once, or free the device",
    )
