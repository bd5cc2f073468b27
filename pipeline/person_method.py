"""CSDN as a run needs it: texts for people, their fusion, then rounds of training on images with what they say."""

from collections.abc import Mapping
from typing import Any

import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from models.person_heads import PersonClassifier, prepare_for_people
from pipeline.csdn_config import CsdnConfig
from pipeline.data.person_labels import PersonLabels
from pipeline.data.supervision import person_labels
from pipeline.errors import ConfigError
from pipeline.experiment import Run
from pipeline.seeds import torch_generator
from pipeline.training.optimisation import build_person_optimiser, person_learning_rate, set_learning_rate
from pipeline.training.person_state import PersonState
from pipeline.training.rounds import Round, Stage, plan_rounds

PersonRun = Run[CsdnConfig, PersonState]


class PersonMethod:
    """Stages `prompts` and `fusion` are one round each, if losses use texts and fuse them; `image` has one an epoch."""

    def plan(self, config: CsdnConfig) -> tuple[Round, ...]:
        """All rounds of a run."""
        prompts, fusion = int(config.with_texts), int(config.with_fusion)
        return plan_rounds(("prompts", prompts), ("fusion", fusion), ("image", config.stages.image_rounds))

    def new_encoder(self, config: CsdnConfig, clip: LoadedClip) -> DualStemEncoder:
        """CLIP's image tower with a stem for each modality and the heads of supervised training.

        Raises:
            ConfigError: CLIP's image tower is not a ResNet.
        """
        encoder = DualStemEncoder.from_clip(clip, image_height=config.images.height, image_width=config.images.width)
        try:
            return prepare_for_people(encoder, stem_activation=config.network.stem_activation)
        except ValueError as error:
            raise ConfigError(str(error), hint="choose a ResNet, such as model.architecture=RN50-quickgelu") from error

    def new_state(self, run: PersonRun) -> PersonState:
        """The data set's people, a fresh classifier of them, and no texts.

        Raises:
            DataError: The data set does not say whom its images show.
        """
        people = _people(run)
        return PersonState(people, _new_classifier(run, people.num_people))

    def restore_state(self, run: PersonRun, packed: Mapping[str, Any]) -> PersonState:
        """Classifier and texts of the last finished round."""
        people = _people(run)
        return PersonState.unpack(packed, people, _new_classifier(run, people.num_people), run.device)

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
            own.classifier,
            learning_rate=optimisation.learning_rate,
            weight_decay=optimisation.weight_decay,
            head_factor=optimisation.head_factor,
        )

    def enter(self, run: PersonRun, round_: Round) -> None:
        """Give the optimiser this round's learning rate."""
        run.state.stage = round_.stage
        set_learning_rate(run.state.optimiser, learning_rate_of(run.config, round_))


def learning_rate_of(config: CsdnConfig, round_: Round) -> float:
    """The learning rate of a round of the image stage, before the factor of the heads."""
    optimisation = config.optimisation
    return person_learning_rate(
        round_.epoch,
        learning_rate=optimisation.learning_rate,
        warmup_rounds=optimisation.warmup_rounds,
        warmup_factor=optimisation.warmup_factor,
        milestones=optimisation.milestones,
        gamma=optimisation.gamma,
    )


def _people(run: PersonRun) -> PersonLabels:
    return person_labels(run.dataset, run.images.training.map(lambda images: images.rows))


def _new_classifier(run: PersonRun, num_people: int) -> PersonClassifier:
    encoder = run.new_encoder()
    generator = torch_generator(run.config.seed, "init", "classifier")
    return PersonClassifier(encoder.feature_width, encoder.projection_width, num_people, generator).to(run.device)
