"""What outlives a round: the one mutable value of a run, and what a checkpoint holds."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clustering.dbscan import PseudoLabels
from models.encoder import DualStemEncoder
from models.modality import PerModality
from pipeline.errors import CheckpointError
from pipeline.training.rounds import Stage

FORMAT = 2


@dataclass(frozen=True, slots=True)
class TextPrototypes:
    """What the learned prompts of one modality say, and the pseudo-labels that they were learned on.

    `features` are the encoded texts, one a cluster, not normalised; `context` the learned words, kept for a warm start.
    """

    features: Float[Tensor, "clusters text"]
    labels: Int64[np.ndarray, " n"]
    context: Float[Tensor, "clusters words width"]


@dataclass(frozen=True, slots=True)
class SelectedRound:
    """The best round so far by a score of held-out images, and the encoder's weights after it, on the CPU."""

    round: int
    score: float
    encoder: dict[str, Tensor]


@dataclass(slots=True)
class TrainingState:
    """Weights, optimiser, labels and texts as they stand after `completed` rounds.

    `stage` is the stage whose starting weights `encoder` has already been given. `labels` are the last usable clusters,
    `exported` those that prompts are first learned on, `text_round` the round in which `text` was learned. `selected`
    is None where the last round is the result.
    """

    encoder: DualStemEncoder
    optimiser: torch.optim.Optimizer
    stage: Stage = "prepare"
    completed: int = 0
    labels: PerModality[PseudoLabels] | None = None
    exported: PerModality[PseudoLabels] | None = None
    text: PerModality[TextPrototypes] | None = None
    text_round: int = 0
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
            "labels": _pack(self.labels, _pack_labels),
            "exported": _pack(self.exported, _pack_labels),
            "text": pack_texts(self.text),
            "text_round": self.text_round,
            "selected": None if self.selected is None else asdict(self.selected),
            "metrics": self.metrics,
            "timings": self.timings,
        }


def restore_state(
    checkpoint: Mapping[str, Any],
    encoder: DualStemEncoder,
    build_optimiser: Callable[[Stage], torch.optim.Optimizer],
    device: torch.device,
) -> TrainingState:
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
        optimiser = build_optimiser(checkpoint["stage"])
        optimiser.load_state_dict(checkpoint["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit the network: {str(error).splitlines()[0]}",
            hint="use the model settings that the run was started with",
        ) from error
    return TrainingState(
        encoder=encoder,
        optimiser=optimiser,
        stage=checkpoint["stage"],
        completed=checkpoint["completed"],
        labels=_unpack(checkpoint["labels"], _unpack_labels),
        exported=_unpack(checkpoint["exported"], _unpack_labels),
        text=unpack_texts(checkpoint["text"], device),
        text_round=checkpoint["text_round"],
        selected=None if checkpoint["selected"] is None else SelectedRound(**checkpoint["selected"]),
        metrics=checkpoint["metrics"],
        timings=checkpoint["timings"],
    )


def pack_texts(texts: PerModality[TextPrototypes] | None) -> dict[str, Any] | None:
    """Tensors on the CPU, for a checkpoint or for other processes."""
    return _pack(texts, _pack_text)


def unpack_texts(packed: Mapping[str, Any] | None, device: torch.device) -> PerModality[TextPrototypes] | None:
    """What was packed, on a device."""
    return _unpack(packed, lambda one: _unpack_text(one, device))


def _pack(pair: PerModality[Any] | None, pack_one: Callable[[Any], dict[str, Tensor]]) -> dict[str, Any] | None:
    return None if pair is None else {modality.value: pack_one(value) for modality, value in pair.items()}


def _unpack(packed: Mapping[str, Any] | None, unpack_one: Callable[[Any], Any]) -> PerModality[Any] | None:
    return None if packed is None else PerModality.build(lambda modality: unpack_one(packed[modality.value]))


def _pack_labels(labels: PseudoLabels) -> dict[str, Tensor]:
    return {"labels": torch.from_numpy(labels.labels), "core": torch.from_numpy(labels.core)}


def _unpack_labels(packed: Mapping[str, Tensor]) -> PseudoLabels:
    return PseudoLabels(labels=packed["labels"].numpy(), core=packed["core"].numpy())


def _pack_text(text: TextPrototypes) -> dict[str, Tensor]:
    return {"features": text.features.cpu(), "labels": torch.from_numpy(text.labels), "context": text.context.cpu()}


def _unpack_text(packed: Mapping[str, Tensor], device: torch.device) -> TextPrototypes:
    return TextPrototypes(
        features=packed["features"].to(device), labels=packed["labels"].numpy(), context=packed["context"].to(device)
    )
