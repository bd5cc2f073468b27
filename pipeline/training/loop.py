"""The one training loop: views of a batch through the network, the terms of an objective, a step of the optimiser.

Nothing inside a step waits for a GPU: what a step needs from the host is known before the epoch begins, and losses are
summed on the device.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.encoder import DualStemEncoder, Encoded, Head
from models.modality import PerModality
from models.precision import Precision, network_precision
from models.transfer import upload
from pipeline.console import progress
from pipeline.data.pixel_supply import PixelSupply
from pipeline.data.transforms.augmentation import Transform
from pipeline.errors import TrainingError
from pipeline.runtime.device import largest_fitting
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.training.objective import Batch, Objective


@dataclass(frozen=True, slots=True)
class Compute:
    """Device of an epoch, precision of the network, and the ranks that share each batch.

    Losses and memories stay in float32. Every rank encodes its share of a batch, and all compute the same losses.
    """

    device: torch.device
    precision: Precision = "float32"
    processes: Processes = ALONE


@dataclass(frozen=True, slots=True)
class EpochSteps:
    """The images of an epoch, step by step.

    `positions` selects the images of each step, over all ranks; each is in the batch once for every view. `groups` is
    the number of clusters or people of each modality in a batch, and `setting` names the setting of the images of each.
    """

    pixels: PerModality[PixelSupply]
    positions: PerModality[Int64[np.ndarray, "steps _"]]
    views: PerModality[tuple[Transform, ...]]
    groups: PerModality[int]
    setting: str

    def __len__(self) -> int:
        return len(self.positions.visible)

    @property
    def num_views(self) -> PerModality[int]:
        """Number of views of an image in a batch."""
        return self.views.map(len)

    def rows(self) -> PerModality[Int64[np.ndarray, "steps _"]]:
        """Positions of all rows of each batch: the images once for every view, views in their order."""
        return self.positions.map_with(lambda at, views: np.tile(at, (1, views)), self.num_views)

    def inputs(self, processes: Processes) -> Iterator[PerModality[Float[Tensor, "_ 3 height width"]]]:
        """The network input of this rank's share of each step."""
        supplies = self.pixels.map_with(
            lambda supply, at: supply.batches(list(at[:, processes.share(at.shape[1])])), self.rows()
        )
        sizes = self.positions.map(lambda at: at.shape[1])
        for pixels in _by_step(supplies):
            yield pixels.map_with(lambda own, views, size: _transformed(own, views, size, processes), self.views, sizes)


def run_epoch(
    encoder: DualStemEncoder,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    steps: EpochSteps,
    compute: Compute,
) -> dict[str, float]:
    """Train for one epoch: `encoder`, `optimiser` and modules of `objective` change.

    Returns the mean of every loss term over the steps, and `total`.

    Raises:
        TrainingError: The loss is not finite, a batch does not fit into memory, or the ranks' weights differ; nothing
            of this epoch was saved.
    """
    encoder.train()
    with gradients_of(encoder, optimiser):
        try:
            sums = run_steps(joined_network(encoder, compute), optimiser, objective, steps, compute)
        except torch.OutOfMemoryError:
            sums = None  # not here: the error would keep the tensors of its frames alive
        if sums is None:
            raise too_large(encoder, objective.heads, steps, compute)
    means = {name: float(total) / len(steps) for name, total in sums.items()}
    if not np.isfinite(means["total"]):
        raise _not_finite("in this epoch")
    require_equal_ranks(optimiser, compute.processes)
    return means


def run_steps(
    network: nn.Module, optimiser: torch.optim.Optimizer, objective: Objective, steps: EpochSteps, compute: Compute
) -> dict[str, Float[Tensor, ""]]:
    """The steps of an epoch, without ever waiting for a GPU: the sum of every loss term, on the device."""
    device, processes, heads = compute.device, compute.processes, objective.heads
    sums: dict[str, Tensor] = {}
    rows = steps.rows()
    uploaded = rows.map(lambda at: upload(at, device))
    batches = zip(steps.inputs(processes), _by_step(uploaded), _by_step(rows), strict=True)
    for step, (inputs, at, host_at) in enumerate(progress(batches, "train", total=len(steps), unit="steps")):
        with network_precision(compute.precision, device):
            encoded: PerModality[Encoded] = network(inputs, heads)
        gathered = encoded.map_with(lambda one, own: _gathered(one, len(own), processes), at)
        batch = Batch(gathered, at, host_at, steps.num_views)
        objective.updates.settle()  # of the last step: these losses are the first to need it
        losses = objective.losses(batch)
        total = losses["total"]
        if device.type == "cpu" and not torch.isfinite(total):
            # On a GPU this would stall every step; there the epoch's sums are checked, before anything is saved.
            raise _not_finite(f"at step {step + 1}")
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()
        objective.updates.after_step(batch)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    objective.updates.settle()
    return sums


def require_equal_ranks(optimiser: torch.optim.Optimizer, processes: Processes) -> None:
    """Compare the trained weights of all ranks, bit for bit; 8 bytes a tensor are exchanged.

    Only the encoder's gradients are averaged over the ranks; other modules rely on the same loss on every rank.
    """
    if processes.count == 1:
        return
    tensors = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    checksums = torch.stack([_checksum(tensor) for tensor in tensors]).cpu().numpy()
    found = processes.gather_rows(checksums[None], processes.count)
    different = found != found[0]
    if different.any():
        ranks = ", ".join(str(rank) for rank in np.flatnonzero(different.any(axis=1)))
        raise TrainingError(
            f"{different.any(axis=0).sum()} of {len(tensors)} trained tensors differ from those of rank 0 on rank "
            f"{ranks}; the last finished round is kept",
            hint="train on GPUs of one kind with the same software on all ranks, or with --processes 1",
        )


@contextmanager
def gradients_of(encoder: DualStemEncoder, optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Require gradients of the optimiser's parameters only: ranks wait for each such gradient."""
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    left_out = [p for p in encoder.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in left_out:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in left_out:
            parameter.requires_grad_(True)


def joined_network(encoder: DualStemEncoder, compute: Compute) -> nn.Module:
    """The encoder with gradients averaged over the ranks."""
    if compute.processes.count == 1:
        return encoder
    devices = [compute.device] if compute.device.type == "cuda" else None
    return DistributedDataParallel(encoder, device_ids=devices, gradient_as_bucket_view=True)


def too_large(encoder: DualStemEncoder, heads: frozenset[Head], steps: EpochSteps, compute: Compute) -> TrainingError:
    """The error for a batch that did not fit; the fitting size is found with black images, and the encoder is spent."""
    per_group = steps.positions.visible.shape[1] // steps.groups.visible
    in_view = steps.groups.map_with(lambda groups, views: groups * views, steps.num_views)

    def attempt(fewer: int) -> None:
        counts = in_view.map(lambda count: max(1, count * fewer // compute.processes.count))
        images = counts.map(lambda count: torch.zeros(count, 3, *encoder.image_size, device=compute.device))
        with network_precision(compute.precision, compute.device):
            encoded = encoder(images, heads)
        parts = [part.sum() for one in encoded for part in (one.neck, one.projection) if part is not None]
        torch.stack(parts).sum().backward()
        encoder.zero_grad(set_to_none=True)

    encoder.zero_grad(set_to_none=True)
    encoder.eval()  # as large, and batch norms do not wait for ranks that still have memory
    fitting = largest_fitting(attempt, per_group)
    wanted = in_view.map(lambda count: count * per_group)
    return TrainingError(
        f"{compute.device} has too little memory to train on {wanted.visible} visible and {wanted.infrared} infrared "
        "images at once; the last finished round is kept",
        hint=f"{fitting} instead of {per_group} fit: --set {steps.setting}={fitting} starts a new run"
        if fitting
        else f"{steps.setting} = 1 is too much already: use fewer at once, or free the device",
    )


def _transformed(
    pixels: Tensor, transforms: tuple[Transform, ...], num_images: int, processes: Processes
) -> Float[Tensor, "_ 3 height width"]:
    """Apply each view's transform to this rank's rows of that view; every rank makes the draws of the whole batch."""
    share = processes.share(num_images * len(transforms))
    views: list[Tensor] = []
    taken = 0
    for view, transform in enumerate(transforms):
        start, stop = (min(max(edge - view * num_images, 0), num_images) for edge in (share.start, share.stop))
        views.append(transform(pixels[taken : taken + stop - start], num_images, slice(start, stop)))
        taken += stop - start
    return views[0] if len(views) == 1 else torch.cat(views)


def _by_step(values: PerModality[Iterable[Any]]) -> Iterator[PerModality[Any]]:
    return (PerModality(*pair) for pair in zip(*values, strict=True))


def _gathered(encoded: Encoded, num_rows: int, processes: Processes) -> Encoded:
    return encoded.each(lambda rows: processes.gather_features(rows, num_rows))


def _checksum(tensor: Tensor) -> Int64[Tensor, ""]:
    """Checksum of the bits; squared, so that steps of one bit in opposite directions do not cancel."""
    bits = tensor.detach().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]).long()
    return (bits * bits).sum()


def _not_finite(when: str) -> TrainingError:
    return TrainingError(
        f"the loss is not finite {when}; the weights of the last finished round are kept",
        hint="lower optimisation.learning_rate, and start again",
    )
