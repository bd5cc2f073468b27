"""A run that is only measured: its encoder is restored, the state of its training is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from pipeline.config.experiment import AnyConfig, Stage
from pipeline.runs.run import Method, Run


class _NoState:
    """The state of a method that is not needed: what is stored is ignored."""

    def pack(self) -> dict[str, Any]:
        return {}

    def fill(self, packed: Mapping[str, Any], device: torch.device) -> None:
        del packed, device


class _NoOptimiser(torch.optim.SGD):
    """An optimiser that takes no step and ignores what is stored."""

    def load_state_dict(self, state_dict: Any) -> None:
        del state_dict


@dataclass(frozen=True, slots=True)
class MeasuredMethod:
    """The method of a run for measuring it without its training images: classifiers and captions need those."""

    method: Method[Any, Any]
    supervised: bool = False

    @property
    def name(self) -> str:
        """Name in settings."""
        return self.method.name

    def new_encoder(self, config: AnyConfig, clip: LoadedClip) -> DualStemEncoder:
        """The initial encoder, on the CPU."""
        return self.method.new_encoder(config, clip)

    def new_state(self, run: Run[Any, Any]) -> _NoState:
        """No state besides the encoder."""
        del run
        return _NoState()

    def new_optimiser(
        self, config: AnyConfig, encoder: DualStemEncoder, state: Any, stage: Stage
    ) -> torch.optim.Optimizer:
        """An optimiser that takes no step."""
        del config, state, stage
        return _NoOptimiser(encoder.parameters(), lr=0.0)
