"""What the supervised methods share: people and their classifier, batches that show them, the record of a round."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.clip import LoadedClip
from models.encoder import DualStemEncoder
from models.modality import PerModality
from models.person_heads import PersonClassifier, prepare_for_people
from models.transfer import upload
from pipeline.config.experiment import SupervisedConfig
from pipeline.config.rounds import Round
from pipeline.data.person_labels import PersonLabels
from pipeline.data.samplers.paired_sampling import PairedIdentityBatches, paired_identity_batches
from pipeline.data.supervision import person_labels
from pipeline.errors import ConfigError
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.identity_objective import LossWeights, PersonObjective, build_view_augmentation
from pipeline.runs.figures import draw_learning, draw_texts
from pipeline.runs.run import Run
from pipeline.runtime.seeds import torch_generator
from pipeline.training.loop import EpochSteps, Objective, run_epoch
from pipeline.training.optimiser import person_learning_rate

SupervisedRun = Run[Any, Any]
"""Of a method whose configuration has the sections of `pipeline.config.supervised`, and whose state has people."""


def new_person_encoder(config: SupervisedConfig, clip: LoadedClip, *, with_texts: bool) -> DualStemEncoder:
    """CLIP's image tower with a stem for each modality and the heads of supervised training.

    Args:
        config: Which images, and what is made of the tower.
        clip: The tower, or a ResNet-50 without text.
        with_texts: Whether anything that is trained meets texts.

    Raises:
        ConfigError: The image tower is no ResNet, or knows no text where texts are met.
    """
    encoder = DualStemEncoder.from_clip(clip, image_height=config.images.height, image_width=config.images.width)
    try:
        prepare_for_people(encoder, stem_activation=config.network.stem_activation)
    except ValueError as error:
        raise ConfigError(str(error), hint="choose a ResNet, such as model.architecture=RN50-quickgelu") from error
    if encoder.projection is None and (with_texts or config.evaluation.heads != ("neck",)):
        raise ConfigError(
            f"{clip.origin.model} knows no text: it has no projection to train with texts or to search by",
            hint="take preset csdn-imagenet-sysu, or a CLIP such as model.architecture=RN50-quickgelu",
        )
    return encoder


def people_of(run: SupervisedRun) -> PersonLabels:
    """Who is shown in each training image, in the order in which they are trained on.

    Raises:
        DataError: The data set does not say, or too few people are seen in both modalities.
    """
    return person_labels(run.dataset, run.images.training.map(lambda images: images.rows))


def new_classifier(run: SupervisedRun, people: PersonLabels) -> PersonClassifier:
    """An untrained classifier of the people, on the run's device, the same one each time."""
    encoder = run.new_encoder()
    generator = torch_generator(run.config.seed, "init", "classifier")
    width, embed = encoder.feature_width, encoder.projection_width
    return PersonClassifier(width, embed, people.num_people, generator).to(run.device)


def learning_rate_of(config: SupervisedConfig, round_: Round) -> float:
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


def person_batches(run: SupervisedRun, generator: np.random.Generator) -> PairedIdentityBatches:
    """One pass of the sampler."""
    settings = run.config.batches
    return paired_identity_batches(
        run.state.own.people.labels,
        people_per_batch=settings.people_per_batch,
        images_per_person=settings.images_per_person,
        replacement=settings.replacement,
        generator=generator,
    )


def person_objective(
    run: SupervisedRun, batches: PairedIdentityBatches, texts: PerModality[Any] | None, weights: LossWeights
) -> PersonObjective:
    """What an epoch minimises over people, and over their texts if there are any."""
    own = run.state.own
    shown = own.people.labels.infrared[batches.positions.infrared]
    return PersonObjective(
        classifier=own.classifier.train(), texts=texts, labels=upload(shown, run.device), weights=weights
    )


def train_epoch_on_people(
    run: SupervisedRun, round_: Round, batches: PairedIdentityBatches, objective: Objective
) -> dict[str, float]:
    """Train for one epoch on batches whose visible images are shown in two views.

    Raises:
        TrainingError: The loss is not finite, or a batch does not fit into memory.
    """
    config = run.config
    # Visible images are shown twice; the second views follow the first ones.
    twice = np.concatenate([batches.positions.visible, batches.positions.visible], axis=1)
    steps = EpochSteps(
        pixels=run.training_pixels,
        positions=PerModality(twice, batches.positions.infrared),
        groups=PerModality(2 * batches.people_per_batch, batches.people_per_batch),
        setting="batches.images_per_person",
        processes=run.processes,
    )
    return run_epoch(
        run.state.encoder,
        run.state.optimiser,
        objective,
        steps,
        augmentation=build_view_augmentation(
            recipe=config.augmentation.recipe,
            padding=config.augmentation.padding,
            normalisation=config.images.normalisation,
            generator=torch_generator(config.seed, "train", round_.number, "augment"),
            processes=run.processes,
        ),
        device=run.device,
        precision=run.precision,
    )


def log_image_round(
    run: SupervisedRun, round_: Round, losses: Mapping[str, float], report: EvaluationReport | None
) -> None:
    """Record the round: checkpoint (from here on it counts), metrics, MLflow, a line at the terminal."""
    row: dict[str, Any] = {"round": round_.number, "stage": round_.stage, "epoch": round_.epoch}
    if round_.stage == "image":
        row["train/learning_rate"] = learning_rate_of(run.config, round_)
    row |= {f"train/loss/{name}": value for name, value in losses.items()}
    if report is not None:
        row |= report.metrics()
    if round_.stage == "prompts":
        draw_texts(run, round_, run.state.own.texts, same_order=True)
    draw_learning(run, round_, row)
    run.finish_round(round_, row, None, report)
