"""What a method is: its settings, its stages, its rounds, and how its network, state and optimiser are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from pipeline.config.experiment import method_name
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.run import Run
from pipeline.runs.stage import Stage
from pipeline.training.state import MethodState


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One method. Flows, tasks, deployments and commands are made from it; docs/extending.md shows an example.

    Attributes:
        config: Its settings, an `AnyConfig`; they name the method, its flow and its rounds.
        supervised: Whether `run.supervision` gives it the people of the training images.
        rounds: Trains a run from its last finished round to its end. Plain Python, without Prefect.
        stages: What `rounds` calls, in the order of a round.
        new_encoder: The encoder that training starts from, on the CPU.
        new_state: What the method remembers before the first round.
        new_optimiser: A fresh optimiser of what a stage trains.
    """

    config: type[Any]
    supervised: bool
    rounds: Callable[[Run[Any, Any]], EvaluationReport | None]
    stages: tuple[Stage[..., Any], ...]
    new_encoder: Callable[[Any, LoadedClip], DualStemEncoder]
    new_state: Callable[[Run[Any, Any]], MethodState]
    new_optimiser: Callable[[Any, DualStemEncoder, Any, str], torch.optim.Optimizer]

    @property
    def name(self) -> str:
        """As settings name it."""
        return method_name(self.config)
