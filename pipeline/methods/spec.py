"""A method: its settings, stages, rounds, and constructors of its network, state and optimiser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from pipeline.config.experiment import method_name
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.run import Run
from pipeline.runs.stages import Stage
from pipeline.training.state import MethodState


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One method. Flows, tasks, deployments and commands are made from it; docs/extending.md shows an example.

    `config` names the method, its flow and its rounds. `supervised`: `run.supervision` contains the people of the
    training images. `rounds` trains a run from its last finished round to its end, without Prefect; it calls `stages`,
    in this order. `new_encoder` makes the initial encoder on the CPU, `new_state` the state before the first round,
    `new_optimiser` a fresh optimiser of a stage.
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
        """Name in settings."""
        return method_name(self.config)
