"""What outlives a round: the one mutable value of a run, and what a checkpoint holds."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from models.encoder import DualStemEncoder
from pipeline.config.rounds import Stage
from pipeline.errors import CheckpointError

FORMAT = 3


@runtime_checkable
class MethodState(Protocol):
    """What a method remembers besides weights."""

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be read without unpickling."""
        ...


Own = TypeVar("Own", bound=MethodState)


@dataclass(frozen=True, slots=True)
class SelectedRound:
    """The best round so far by a score of held-out images, and the encoder's weights after it, on the CPU."""

    round: int
    score: float
    encoder: dict[str, Tensor]


@dataclass(slots=True)
class TrainingState(Generic[Own]):
    """Weights, optimiser and the method's own memory as they stand after `completed` rounds.

    `stage` is the stage whose starting weights `encoder` has already been given. `selected` is None where the last
    round is the result.
    """

    encoder: DualStemEncoder
    optimiser: torch.optim.Optimizer
    own: Own
    stage: Stage
    completed: int = 0
    selected: SelectedRound | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    def to_checkpoint(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be read without unpickling."""
        return {
            "format": FORMAT,
            "stage": self.stage,
            "completed": self.completed,
            "encoder": self.encoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "own": self.own.pack(),
            "selected": None if self.selected is None else asdict(self.selected),
            "metrics": self.metrics,
            "timings": self.timings,
        }


def restore_state(
    checkpoint: Mapping[str, Any],
    encoder: DualStemEncoder,
    restore_own: Callable[[Mapping[str, Any]], Own],
    build_optimiser: Callable[[Own, Stage], torch.optim.Optimizer],
) -> TrainingState[Own]:
    """Fill a fresh encoder and optimiser with what a checkpoint holds.

    Raises:
        CheckpointError: The checkpoint has another format or another network's shapes.
    """
    if checkpoint.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {checkpoint.get('format')!r}, expected {FORMAT}",
            hint="it was written by another version; start a new run, or use that version",
        )
    try:
        encoder.load_state_dict(checkpoint["encoder"])
        own = restore_own(checkpoint["own"])
        optimiser = build_optimiser(own, checkpoint["stage"])
        optimiser.load_state_dict(checkpoint["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the network: {str(error).splitlines()[0]}",
            hint="use the model settings that the run was started with",
        ) from error
    return TrainingState(
        encoder=encoder,
        optimiser=optimiser,
        own=own,
        stage=checkpoint["stage"],
        completed=checkpoint["completed"],
        selected=None if checkpoint["selected"] is None else SelectedRound(**checkpoint["selected"]),
        metrics=checkpoint["metrics"],
        timings=checkpoint["timings"],
    )
