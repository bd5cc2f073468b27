"""Training state: the one mutable value of a run, and the content of a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from models.encoder import DualStemEncoder
from pipeline.config.experiment import Stage
from pipeline.errors import CheckpointError

FORMAT = 4
"""Raised whenever the content of a checkpoint changes; others are refused."""


@runtime_checkable
class MethodState(Protocol):
    """State of a method besides weights."""

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values only, to be read without unpickling."""

    def fill(self, packed: Mapping[str, Any], device: torch.device) -> None:
        """Restore packed values."""


State = TypeVar("State", bound=MethodState)


@dataclass(frozen=True, slots=True)
class SelectedRound:
    """The best round so far by a score of held-out images, and its encoder's weights, on the CPU."""

    round: int
    score: float
    encoder: dict[str, Tensor]


@dataclass(slots=True)
class TrainingState(Generic[State]):
    """Weights, optimiser and the method's own state after `completed` rounds.

    `stage` is the stage that `encoder` and `optimiser` were made for. `selected` is None if the last round is the
    result.
    """

    encoder: DualStemEncoder
    optimiser: torch.optim.Optimizer
    method: State
    stage: Stage
    completed: int = 0
    selected: SelectedRound | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    def to_checkpoint(self) -> dict[str, Any]:
        """Tensors and plain values only, to be read without unpickling."""
        return {
            "format": FORMAT,
            "stage": self.stage,
            "completed": self.completed,
            "encoder": self.encoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "method": self.method.pack(),
            "selected": None if self.selected is None else asdict(self.selected),
            "metrics": self.metrics,
            "timings": self.timings,
        }


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a checkpoint, for a check of their types."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    stage: str
    completed: Annotated[int, Field(ge=0)]
    encoder: dict[str, Tensor]
    optimiser: dict[str, Any]
    method: dict[str, Any]
    selected: dict[str, Any] | None
    metrics: list[dict[str, Any]]
    timings: list[dict[str, Any]]


def restore_state(
    checkpoint: Mapping[str, Any],
    encoder: DualStemEncoder,
    method: State,
    new_optimiser: Callable[[Stage], torch.optim.Optimizer],
    device: torch.device,
) -> TrainingState[State]:
    """Fill a fresh encoder, method state and optimiser from a checkpoint.

    Raises:
        CheckpointError: The checkpoint has another format, another network's shapes, or lacks a part.
    """
    if checkpoint.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {checkpoint.get('format')!r}, expected {FORMAT}",
            hint="it was written by another version; start a new run, or use that version",
        )
    try:
        TypeAdapter(_Parts).validate_python(dict(checkpoint))
        selected = None if checkpoint["selected"] is None else SelectedRound(**checkpoint["selected"])
        encoder.load_state_dict(checkpoint["encoder"])
        method.fill(checkpoint["method"], device)
        optimiser = new_optimiser(checkpoint["stage"])
        optimiser.load_state_dict(checkpoint["optimiser"])
    except ValidationError as error:
        part = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise CheckpointError(
            f"the checkpoint is damaged: {part}", hint="restore it from a copy, or start a new run"
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the network: {str(error).partition(chr(10))[0]}",
            hint="use the model settings that the run was started with",
        ) from error
    return TrainingState(
        encoder=encoder,
        optimiser=optimiser,
        method=method,
        stage=checkpoint["stage"],
        completed=checkpoint["completed"],
        selected=selected,
        metrics=checkpoint["metrics"],
        timings=checkpoint["timings"],
    )
