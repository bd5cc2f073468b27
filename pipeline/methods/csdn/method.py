"""CSDN as a run needs it: texts for people, their fusion, then rounds of training on images with what they say."""

from collections.abc import Mapping
from typing import Any

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from pipeline.config.csdn import CsdnConfig
from pipeline.config.rounds import Round, Stage
from pipeline.methods.csdn.state import PersonState
from pipeline.methods.supervised import learning_rate_of, new_classifier, new_person_encoder, people_of
from pipeline.runs.run import Run
from pipeline.training.optimiser import build_person_optimiser, set_learning_rate

PersonRun = Run[CsdnConfig, PersonState]


class PersonMethod:
    """Stages `prompts` and `fusion` are one round each, if losses use texts and fuse them; `image` has one an epoch."""

    def new_encoder(self, config: CsdnConfig, clip: LoadedClip) -> DualStemEncoder:
        """CLIP's image tower with a stem for each modality and the heads of supervised training.

        Raises:
            ConfigError: CLIP's image tower is not a ResNet.
        """
        return new_person_encoder(config, clip, with_texts=config.with_texts)

    def new_state(self, run: PersonRun) -> PersonState:
        """The data set's people, a fresh classifier of them, and no texts.

        Raises:
            DataError: The data set does not say whom its images show.
        """
        people = people_of(run)
        return PersonState(people, new_classifier(run, people))

    def restore_state(self, run: PersonRun, packed: Mapping[str, Any]) -> PersonState:
        """Classifier and texts of the last finished round."""
        people = people_of(run)
        return PersonState.unpack(packed, people, new_classifier(run, people), run.device)

    def new_optimiser(
        self,
        config: CsdnConfig,
        encoder: DualStemEncoder,
        own: PersonState,
        stage: Stage,  # noqa: ARG002 - others do
    ) -> torch.optim.Optimizer:
        """Adam over encoder and classifier, whose heads learn faster; texts have optimisers of their own."""
        optimisation = config.optimisation
        return build_person_optimiser(
            encoder,
            [own.classifier],
            learning_rate=optimisation.learning_rate,
            weight_decay=optimisation.weight_decay,
            head_factor=optimisation.head_factor,
        )

    def enter(self, run: PersonRun, round_: Round) -> None:
        """Give the optimiser this round's learning rate."""
        run.state.stage = round_.stage
        set_learning_rate(run.state.optimiser, learning_rate_of(run.config, round_))
