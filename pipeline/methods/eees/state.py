"""State of EEES between rounds besides the encoder: the classifier of people, and the modules that read captions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.fusion import PairViewFusion
from models.person_heads import PersonClassifier
from models.text_tower import TextTower
from pipeline.config.eees import EeesConfig
from pipeline.data.supervision import PersonLabels
from pipeline.runs.run import Run


@dataclass(slots=True)
class EeesState:
    """People (from the data set, not packed), their classifier, and modules trained on captions.

    `fusion`, `pooled_map` and `tower` are None if no loss needs them, or if the text tower is frozen. `captions` is the
    digest of the captions; None until they are read: a finished run is measured without them.
    """

    people: PersonLabels
    classifier: PersonClassifier
    fusion: PairViewFusion | None
    pooled_map: nn.Linear | None
    tower: TextTower | None
    captions: str | None = None

    @property
    def heads(self) -> list[nn.Module]:
        """Modules trained with the heads of the encoder; the text tower has a learning rate of its own."""
        return [head for head in (self.classifier, self.fusion, self.pooled_map) if head is not None]

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        return {"captions": self.captions, "people": self.people.num_people, "modules": modules}

    def fill(self, packed: Mapping[str, Any], device: torch.device) -> None:  # noqa: ARG002 - modules are there already
        """Restore packed values."""
        if packed["people"] != self.people.num_people:
            raise ValueError(f"it classifies {packed['people']} people, the data set has {self.people.num_people}")
        self.captions = packed["captions"]
        modules = self._modules()
        if packed["modules"].keys() != modules.keys():
            raise ValueError(f"it holds {sorted(packed['modules'])}, expected {sorted(modules)}")
        for name, module in modules.items():
            module.load_state_dict(packed["modules"][name])

    def _modules(self) -> dict[str, nn.Module]:
        modules = {
            "classifier": self.classifier,
            "fusion": self.fusion,
            "pooled_map": self.pooled_map,
            "tower": self.tower,
        }
        return {name: module for name, module in modules.items() if module is not None}


EeesRun = Run[EeesConfig, EeesState]
