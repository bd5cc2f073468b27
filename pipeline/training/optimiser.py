"""Learning rates as pure functions of the epoch, optimisers of the image stages, and the loop of text fitting.

An epoch here is a round of its stage, counted from 1; its rate is computed before the first step and kept throughout.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.console import progress
from pipeline.errors import TrainingError

AtSwap = Literal["continue", "restart", "fixed"]

_FACTOR = "lr_factor"


@runtime_checkable
class EncoderWithRoles(Protocol):
    """A network that assigns a part, such as `trunk`, to each parameter."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters with their dotted names."""
        ...

    def parameter_role(self, name: str) -> str:
        """The part of a parameter."""
        ...


def multistep_warmup(
    index: int, *, base: float, warmup: int, factor: float, milestones: Sequence[int], gamma: float
) -> float:
    """Linear warm-up from `factor * base` at index 0 to `base` at index `warmup`, then steps down.

    The rate is multiplied by `gamma` from each milestone on (itself included), also during the warm-up. CCLNet's index
    starts at 1, CSDN's at 0.

    >>> round(multistep_warmup(1, base=3.5e-4, warmup=10, factor=0.01, milestones=(30, 50), gamma=0.1), 10)
    3.815e-05
    """
    climb = factor + (1.0 - factor) * index / warmup if index < warmup else 1.0
    passed = sum(milestone <= index for milestone in milestones)
    return base * climb * gamma**passed


def cosine_warmup(
    index: int, *, base: float, total_epochs: int, warmup_epochs: int, warmup_start: float = 1e-5, floor: float = 1e-6
) -> float:
    """Linear warm-up from `warmup_start` at index 0, then half a cosine down to `floor` at `total_epochs` and beyond.

    The cosine is that of the whole schedule: it does not begin anew after the warm-up, so `base` is never reached if
    there is one. The first epoch of prompt learning is 1.

    >>> round(cosine_warmup(30, base=3.5e-4, total_epochs=60, warmup_epochs=5), 10)
    0.0001755
    """
    if index < warmup_epochs:
        return warmup_start + (base - warmup_start) * index / warmup_epochs
    if index >= total_epochs:
        return floor
    return floor + (base - floor) * (1.0 + math.cos(math.pi * index / total_epochs)) / 2.0


def image_learning_rate(
    epoch: int,
    *,
    learning_rate: float,
    warmup_rounds: int,
    warmup_factor: float,
    milestones: Sequence[int],
    gamma: float,
    swap_start: int,
    at_swap: AtSwap = "continue",
    fixed_swap_learning_rate: float | None = None,
) -> float:
    """The base rate of an image stage in one epoch, from 1; bias tensors get a multiple of it from their group.

    From epoch `swap_start` on, `at_swap="continue"` keeps the schedule, `restart` begins it again at its epoch 1,
    milestones included, and `fixed` holds `fixed_swap_learning_rate`.

    Source: Chen et al., ACM MM 2023 (CCLNet), public code: `continue` on SYSU-MM01, where all of swapping then runs at
    a hundredth of the rate, `restart` on RegDB. `fixed` is ours.
    """
    index = epoch
    if epoch >= swap_start:
        if at_swap == "fixed":
            assert fixed_swap_learning_rate is not None, "the configuration pairs `fixed` with its value"
            return fixed_swap_learning_rate
        if at_swap == "restart":
            index = epoch - swap_start + 1
    return multistep_warmup(
        index, base=learning_rate, warmup=warmup_rounds, factor=warmup_factor, milestones=milestones, gamma=gamma
    )


def person_learning_rate(
    epoch: int,
    *,
    learning_rate: float,
    warmup_rounds: int,
    warmup_factor: float,
    milestones: Sequence[int],
    gamma: float,
) -> float:
    """The base rate of CSDN's image stage in one epoch, counted from 1; heads get a multiple of it from their group.

    Source: nengdong96/CSDN: the schedule is read before it steps, so its first epoch has index 0.
    """
    return multistep_warmup(
        epoch - 1, base=learning_rate, warmup=warmup_rounds, factor=warmup_factor, milestones=milestones, gamma=gamma
    )


def optimiser_restarts(epoch: int, *, swap_start: int, at_swap: AtSwap) -> bool:
    """Whether the epoch begins with a new optimiser: a restarted schedule discards the gradients' averages, too."""
    return at_swap == "restart" and epoch == swap_start


def build_image_optimiser(
    encoder: EncoderWithRoles, *, roles: Collection[str], learning_rate: float, weight_decay: float, bias_factor: float
) -> torch.optim.Adam:
    """Adam over the parts `roles` of an encoder; the learning rate of bias tensors is `bias_factor` times higher.

    Frozen parameters are excluded. Parts without a gradient in a stage must not be in `roles`: weight decay would
    shrink them.

    Source: Chen et al., ACM MM 2023 (CCLNet), public code. Differs: groups follow roles, not parts of names, and the
    factor stays with its group, so a restart keeps it.
    """
    trained = [
        (name, parameter)
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad and encoder.parameter_role(name) in roles
    ]
    found = {encoder.parameter_role(name) for name, _ in trained}
    assert found == set(roles), f"no trainable parameter has the role {sorted(set(roles) - found)}"
    groups = [
        {"params": [parameter for name, parameter in trained if _is_bias(name) == biases], _FACTOR: factor}
        for biases, factor in ((False, 1.0), (True, bias_factor))
    ]
    optimiser = _adam([group for group in groups if group["params"]], weight_decay)
    set_learning_rate(optimiser, learning_rate)
    return optimiser


def build_person_optimiser(
    encoder: EncoderWithRoles,
    heads: Sequence[nn.Module],
    *,
    learning_rate: float,
    weight_decay: float,
    head_factor: float,
    constant: Sequence[nn.Parameter] = (),
    constant_learning_rate: float = 0.0,
) -> torch.optim.Adam:
    """Adam over an encoder and heads; pooling, necks and heads learn `head_factor` times faster than the rest.

    `constant` parameters have a learning rate of their own that no schedule changes.

    Source: nengdong96/CSDN, optimiser of stage 3: groups by name there, by role here.
    """
    roles = {"pool", "neck", "projection_neck"}
    named = [(encoder.parameter_role(name) in roles, parameter) for name, parameter in encoder.named_parameters()]
    named += [(True, parameter) for head in heads for parameter in head.parameters()]
    groups = [
        {"params": [parameter for is_head, parameter in named if is_head == wanted], _FACTOR: factor}
        for wanted, factor in ((False, 1.0), (True, head_factor))
    ]
    if constant:
        groups.append({"params": list(constant), "lr": constant_learning_rate})
    optimiser = _adam(groups, weight_decay)
    set_learning_rate(optimiser, learning_rate)
    return optimiser


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group its multiple of the base rate; a group without a factor keeps its own."""
    for group in optimiser.param_groups:
        if _FACTOR in group:
            group["lr"] = learning_rate * group[_FACTOR]


def _is_bias(name: str) -> bool:
    # Fused attention keeps its three biases in one tensor called `in_proj_bias`.
    leaf = name.rpartition(".")[2]
    return leaf == "bias" or leaf.endswith("_bias")


def _adam(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Adam:
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
    # One kernel for all tensors on a GPU, lists of tensors on the CPU; each gives the same bits every time.
    return torch.optim.Adam(groups, weight_decay=weight_decay, fused=on_gpu or None, foreach=None if on_gpu else True)


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
