"""Shared parts of the supervised methods: loss terms, classifier of people, batches, training for an epoch, record.

A batch has the same people in both modalities: the k-th infrared image and the k-th image of every visible view are of
one person. All views are classified and enter the triplet; the gap between the modalities reads first views only.

Source: Yu et al., IEEE TMM 2025 (CSDN), high-level semantic embedding; public code, stage 3.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.clip import LoadedClip
from models.encoder import DualStemEncoder, Head, encoder_widths
from models.losses import prototype_contrast, text_classification
from models.metric_losses import modality_gap, weighted_triplet
from models.modality import Modality, PerModality
from models.person_heads import PersonClassifier, prepare_for_people
from models.transfer import upload
from pipeline.config.experiment import Round
from pipeline.config.shared import EvaluationConfig, ImagesConfig, PersonNetworkConfig, PersonOptimisationConfig
from pipeline.data.samplers.sampling import CrossModalBatches, paired_identity_batches
from pipeline.data.supervision import PersonLabels
from pipeline.data.transforms.channel_augmentation import channel_views
from pipeline.errors import ConfigError
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.run import Run
from pipeline.runs.stages import rank_zero, record_round
from pipeline.runtime.seeds import torch_generator
from pipeline.training.loop import Compute, EpochSteps, run_epoch
from pipeline.training.objective import Batch, Objective, Term
from pipeline.training.optimiser import person_learning_rate, set_learning_rate


@runtime_checkable
class SupervisedConfig(Protocol):
    """The settings that are read here; those of a method have more."""

    @property
    def images(self) -> ImagesConfig:
        """How images are stored and shown."""

    @property
    def network(self) -> PersonNetworkConfig:
        """What is made of CLIP's image tower."""

    @property
    def optimisation(self) -> PersonOptimisationConfig:
        """Optimiser and schedule."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """Retrieval tests."""


People = PerModality[Int64[Tensor, " n"]]
"""The person of each training image, on the device."""


def person_terms(
    people: People,
    classifier: PersonClassifier,
    *,
    gap_weight: float,
    triplet_weight: float,
    triplet_softmax: Literal["released", "stable"],
) -> list[Term]:
    """Identity, triplet, and the gap between the modalities; a weight of 0 removes a term.

    `classifier` is in training mode and reads the necks; `triplet_softmax` averages the distances of an anchor.
    """
    projects = classifier.projection is not None
    necks = (Head.NECK, Head.PROJECTION_NECK) if projects else (Head.NECK,)
    compared = (Head.POOLED, Head.PROJECTION) if projects else (Head.POOLED,)

    def everyone(batch: Batch) -> Tensor:
        return torch.cat([*batch.values(people)])

    def identity(batch: Batch) -> Tensor:
        labels, features = batch.once(everyone), [batch.all_rows(head) for head in necks]
        scores = classifier(features[0], features[1] if projects else None)
        return _sum(prototype_contrast(some, labels) for some in scores)

    def triplet(batch: Batch) -> Tensor:
        labels, features = batch.once(everyone), [batch.all_rows(head) for head in compared]
        return _sum(weighted_triplet(some, labels, triplet_softmax) for some in features)

    def gap(batch: Batch) -> Tensor:
        labels = batch.first(batch.values(people))
        first = (batch.views(head).map(lambda views: views[0]) for head in compared)
        return _sum(modality_gap(*some, *labels) for some in first)

    return [
        Term("identity", 1.0, frozenset(necks), identity),
        Term("triplet", triplet_weight, frozenset(compared), triplet),
        Term("gap", gap_weight, frozenset(compared), gap),
    ]


def text_terms(
    people: People,
    texts: PerModality[Float[Tensor, "people embed"]],
    *,
    visible_text_weight: float,
    infrared_text_weight: float,
    text_on_second_view: bool,
) -> list[Term]:
    """Classification of images by the text prototypes of people in their modality; a weight of 0 removes a term.

    `text_on_second_view`: further views are classified as well.
    """

    def term(modality: Modality, weight: float) -> Term:
        def loss(batch: Batch) -> Tensor:
            views = batch.views(Head.PROJECTION)[modality]
            chosen = views if text_on_second_view else views[:1]
            labels = batch.first(batch.values(people))[modality]
            return _sum(text_classification(view @ texts[modality].T, labels, 0.0) for view in chosen)

        return Term(f"{modality}_text", weight, frozenset({Head.PROJECTION}), loss)

    return [term(Modality.VISIBLE, visible_text_weight), term(Modality.INFRARED, infrared_text_weight)]


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


SupervisedRun = Run[Any, Any]
"""Of a method whose settings have the sections of `pipeline.config.shared`, and whose state has `people`."""


def new_person_encoder(config: SupervisedConfig, clip: LoadedClip, *, with_texts: bool) -> DualStemEncoder:
    """CLIP's image tower with a stem for each modality and the heads of supervised training.

    `with_texts`: the losses read text prototypes or captions.

    Raises:
        ConfigError: The image tower is no ResNet, images are too small, or a needed text encoder is missing.
    """
    try:
        encoder = DualStemEncoder.from_clip(clip, image_height=config.images.height, image_width=config.images.width)
        prepare_for_people(encoder, stem_activation=config.network.stem_activation)
    except ValueError as error:
        raise ConfigError(str(error), hint="choose a ResNet, such as model.architecture=RN50-quickgelu") from error
    if encoder.projection is None and (with_texts or config.evaluation.heads != ("neck",)):
        raise ConfigError(
            f"{clip.origin.model} has no text encoder, so no projection to train with text prototypes or to search by",
            hint="take preset csdn-imagenet-sysu, or a CLIP such as model.architecture=RN50-quickgelu",
        )
    return encoder


def new_classifier(run: SupervisedRun, people: PersonLabels) -> PersonClassifier:
    """An untrained classifier of the people, on the run's device, bit for bit the same each time."""
    generator = torch_generator(run.config.seed, "init", "classifier")
    width, embed = encoder_widths(run.clip)
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


def person_batches(run: SupervisedRun, generator: np.random.Generator) -> CrossModalBatches:
    """One pass of the sampler."""
    settings = run.config.batches
    return paired_identity_batches(
        run.state.method.people.labels,
        people_per_batch=settings.people_per_batch,
        images_per_person=settings.images_per_person,
        replacement=settings.replacement,
        generator=generator,
    )


def people_on_device(run: SupervisedRun) -> People:
    """The person of each training image, on the run's device."""
    people: PersonLabels = run.state.method.people
    return people.labels.map(lambda labels: upload(labels, run.device))


def train_epoch_on_people(run: SupervisedRun, batches: CrossModalBatches, terms: Sequence[Term]) -> dict[str, float]:
    """Train for one epoch on two views of visible images and one of infrared images."""
    config = run.config
    set_learning_rate(run.state.optimiser, learning_rate_of(config, run.round))
    steps = EpochSteps(
        pixels=run.training_pixels,
        positions=batches.positions,
        views=channel_views(
            recipe=config.augmentation.recipe,
            padding=config.augmentation.padding,
            normalisation=config.images.normalisation,
            generator=torch_generator(config.seed, "train", run.round.number, "augment"),
        ),
        groups=batches.clusters_per_batch,
        setting="batches.images_per_person",
    )
    compute = Compute(run.device, run.precision, run.processes)
    return run_epoch(run.state.encoder, run.state.optimiser, Objective(tuple(terms)), steps, compute)


@rank_zero
def record(run: SupervisedRun, trained: Mapping[str, float], report: EvaluationReport | None) -> None:
    """Write the losses and the checkpoint of the completed round."""
    rate = {"train/learning_rate": learning_rate_of(run.config, run.round)} if run.round.trains_images else {}
    record_round(run, rate | {f"train/loss/{name}": value for name, value in trained.items()}, report)
