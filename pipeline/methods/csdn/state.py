"""State of CSDN between rounds besides the encoder: text prototypes of people and their classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.modality import PerModality
from models.person_heads import PersonClassifier
from pipeline.config.csdn import CsdnConfig
from pipeline.data.supervision import PersonLabels
from pipeline.runs.run import Run


@dataclass(slots=True)
class CsdnState:
    """People (from the data set, not packed), their classifier and text prototypes.

    `texts` has one text prototype a person and modality, `fused` one a person; None until learned.
    """

    people: PersonLabels
    classifier: PersonClassifier
    texts: PerModality[Float[Tensor, "people embed"]] | None = None
    fused: Float[Tensor, "people embed"] | None = None

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "classifier": self.classifier.state_dict(),
            "texts": None if self.texts is None else [text.cpu() for text in self.texts],
            "fused": None if self.fused is None else self.fused.cpu(),
        }

    def fill(self, packed: Mapping[str, Any], device: torch.device) -> None:
        """Restore packed values, text prototypes on a device."""
        known = len(packed["classifier"]["neck.weight"])
        if known != self.classifier.num_people:
            raise ValueError(f"it classifies {known} people, the data set has {self.classifier.num_people}")
        self.classifier.load_state_dict(packed["classifier"])
        texts, fused = packed["texts"], packed["fused"]
        self.texts = None if texts is None else PerModality(*(text.to(device) for text in texts))
        self.fused = None if fused is None else fused.to(device)


CsdnRun = Run[CsdnConfig, CsdnState]
