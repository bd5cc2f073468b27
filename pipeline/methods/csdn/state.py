"""What CSDN remembers from round to round, besides the encoder: texts of people, and who classifies them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.modality import PerModality
from models.person_heads import PersonClassifier
from pipeline.data.person_labels import PersonLabels


@dataclass(slots=True)
class PersonState:
    """People, who classifies them, and their texts.

    `people` come from the data set and are not packed; `texts` are those of the prompts, one a person and modality,
    `fused` is one a person; None until learned.
    """

    people: PersonLabels
    classifier: PersonClassifier
    texts: PerModality[Float[Tensor, "people embed"]] | None = None
    fused: Float[Tensor, "people embed"] | None = None

    @property
    def targets(self) -> PerModality[Float[Tensor, "people embed"]] | None:
        """The texts that images of a modality are compared with: fused ones, or its own where nothing is fused."""
        return self.texts if self.fused is None else PerModality(self.fused, self.fused)

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "classifier": self.classifier.state_dict(),
            "texts": None if self.texts is None else [text.cpu() for text in self.texts],
            "fused": None if self.fused is None else self.fused.cpu(),
        }

    @staticmethod
    def unpack(
        packed: Mapping[str, Any], people: PersonLabels, classifier: PersonClassifier, device: torch.device
    ) -> "PersonState":
        """What was packed.

        Args:
            packed: Of a run on the same people.
            people: Those of the data set.
            classifier: A fresh one, filled here.
            device: Where the texts are needed.

        Raises:
            ValueError: It holds another number of people.
        """
        known = len(packed["classifier"]["neck.weight"])
        if known != classifier.num_people:
            raise ValueError(f"it tells {known} people apart, the data set has {classifier.num_people}")
        classifier.load_state_dict(packed["classifier"])
        texts, fused = packed["texts"], packed["fused"]
        return PersonState(
            people=people,
            classifier=classifier,
            texts=None if texts is None else PerModality(*(text.to(device) for text in texts)),
            fused=None if fused is None else fused.to(device),
        )
