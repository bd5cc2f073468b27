"""The stages of a round as plain functions: what a flow wraps as tasks, and what a notebook or a benchmark calls."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clustering.dbscan import PseudoLabels
from clustering.labelling import Labelling
from clustering.matching import Matching, match_clusters
from clustering.prototypes import cluster_prototypes
from models.encoder import Head
from models.memory import PrototypeMemory
from models.modality import PerModality
from models.swap import CrossModalSwap
from pipeline.config.rounds import Round
from pipeline.data.samplers.sampling import cross_modal_batches
from pipeline.errors import DataError, DegenerateClustering
from pipeline.evaluation.feature_files import write_features, write_queries
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank
from pipeline.methods.cclnet import prompts as prompting
from pipeline.methods.cclnet.labelling import usable_labels
from pipeline.methods.cclnet.method import ClusterRun, cluster_images, prompt_features, text_from_first
from pipeline.methods.cclnet.metrics import describe_round
from pipeline.methods.cclnet.objective import TextLoss, build_augmentation, labelled_images, train_epoch
from pipeline.methods.cclnet.state import TextPrototypes
from pipeline.runs.evaluation import measure, measure_result, remember_if_best
from pipeline.runs.export_result import export_result
from pipeline.runs.figures import draw_clusters, draw_learning, draw_retrieval, draw_texts
from pipeline.runs.run import Run, logger
from pipeline.runtime.seeds import numpy_generator, torch_generator


def extract(run: Run[Any, Any], round_: Round) -> PerModality[FeatureBank]:  # noqa: ARG001 - it names the task
    """Encode all training images of both modalities with the weights that the round starts from."""
    with run.timed("extract"):
        return run.extract_training_features(Head.NECK)


def pseudo_label(run: ClusterRun, round_: Round, features: PerModality[FeatureBank]) -> PerModality[Labelling]:
    """Cluster each modality alone.

    Raises:
        DegenerateClustering: A modality has no cluster, and had none in an earlier round.
    """
    config = run.config
    with run.timed("label"):
        found = cluster_images(run, features)
        labels = usable_labels(found, run.state.own.labels, config.labelling, config.batches.clusters_per_batch)
    run.state.own.labels = labels.map(lambda labelling: labelling.labels)
    if round_.stage == "prepare" and round_.last_of_stage:
        run.state.own.exported = run.state.own.labels
    return labels


def match(
    run: ClusterRun,
    round_: Round,  # noqa: ARG001 - it names the task
    features: PerModality[FeatureBank],
    labels: PerModality[Labelling],
) -> Matching:
    """Pair visible with infrared clusters by their prototypes, for the round's record."""
    with run.timed("match"):
        prototypes = features.map_with(
            lambda bank, labelling: cluster_prototypes(bank.vectors, labelling.labels.labels), labels
        )
        return match_clusters(
            prototypes.visible, prototypes.infrared, method=run.config.matching.method, floor=run.config.matching.floor
        )


def learn_prompts(run: ClusterRun, round_: Round, labels: PerModality[Labelling]) -> PerModality[TextPrototypes] | None:
    """Learn one sentence a cluster; a refresh that has nothing to describe keeps the texts that there are.

    The first time they are learned on the clusters that stage `prepare` handed over, later on the round's own.

    Raises:
        DegenerateClustering: A modality has outliers only and there are no earlier texts.
    """
    config, own = run.config.prompts, run.state.own
    first = round_.epoch == 1
    assert own.exported is not None or not first
    chosen = own.exported if first else labels.map(lambda labelling: labelling.labels)
    assert chosen is not None
    with run.timed("prompts"):
        features = prompt_features(run, initial=first or config.feature_source == "initial")
        try:
            prompting.refuse_nothing(chosen.map(lambda pseudo: pseudo.labels))
        except DegenerateClustering as error:
            if first:
                raise
            logger.warning("prompts are not refreshed in round %d: %s", round_.number, error.message)
        else:
            own.text = text_from_first(run, partial(_learn_texts, run, round_, features, chosen))
    own.text_round = round_.number
    run.save()  # Texts take minutes to learn: a run killed later in this round does not learn them again.
    return own.text


def _learn_texts(
    run: ClusterRun,
    round_: Round,
    features: PerModality[Float[Tensor, "n embed"]],
    labels: PerModality[PseudoLabels],
) -> PerModality[TextPrototypes]:
    config, first, seed = run.config.prompts, round_.epoch == 1, run.config.seed
    return prompting.learn_prompts(
        features,
        labels.map(lambda pseudo: pseudo.labels),
        run.text_tower,
        num_context=config.num_context,
        epochs=config.epochs if first else config.refresh_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_epochs=config.warmup_epochs if first else min(1, config.warmup_epochs),
        weight_decay=config.weight_decay,
        previous=run.state.own.text if config.init == "warm" and not first else None,
        init_generator=lambda modality: torch_generator(seed, "init", "prompts", modality, round_.number),
        batch_generator=lambda epoch: numpy_generator(seed, "batches", "prompts", round_.number, epoch),
    )


def train(
    run: ClusterRun,
    round_: Round,
    features: PerModality[FeatureBank],
    labels: PerModality[Labelling],
    text: PerModality[TextPrototypes] | None,
) -> dict[str, float]:
    """Train the encoder for one epoch against the memories of this round's clusters.

    Raises:
        TrainingError: The loss is not finite.
    """
    config = run.config
    seed = (config.seed, "train", round_.number)
    with run.timed("train"):
        return train_epoch(
            run.state.encoder,
            run.state.optimiser,
            run.training_pixels.map_with(
                lambda pixels, labelling, words: labelled_images(pixels, labelling.labels, words),
                labels,
                text or PerModality(None, None),
            ),
            features.map_with(partial(_memory, run.device), labels),
            cross_modal_batches(
                labels.map(lambda labelling: labelling.labels.labels),
                clusters_per_batch=config.batches.clusters_per_batch,
                images_per_cluster=config.batches.images_per_cluster,
                replacement=config.batches.replacement,
                generator=numpy_generator(*seed, "batches"),
            ),
            temperature=config.memory.temperature,
            momentum=config.memory.momentum,
            swap=_swap(run, round_),
            text=_text_loss(run, text),
            augmentation=build_augmentation(
                recipe=config.augmentation.recipe,
                padding=config.augmentation.padding,
                normalisation=config.images.normalisation,
                generator=torch_generator(*seed, "augment"),
                processes=run.processes,
            ),
            device=run.device,
            precision=run.precision,
            processes=run.processes,
        )


def _memory(device: torch.device, bank: FeatureBank, labelling: Labelling) -> PrototypeMemory:
    return PrototypeMemory(torch.from_numpy(cluster_prototypes(bank.vectors, labelling.labels.labels)).to(device))


def _text_loss(run: ClusterRun, text: PerModality[TextPrototypes] | None) -> TextLoss | None:
    if text is None:
        return None
    prompts = run.config.prompts
    return TextLoss(text.map(lambda one: one.features), prompts.text_weight, prompts.smoothing)


def evaluate(run: Run[Any, Any], round_: Round) -> EvaluationReport:
    """Encode all held-out images once and run every search of the protocol; nothing in training reads the result."""
    with run.timed("evaluate"):
        measurement = measure(run, round_, final=round_ == run.rounds[-1])
    remember_if_best(run, round_, measurement.report)
    draw_retrieval(run, round_, measurement.features)
    return measurement.report


def measure_again(
    run: Run[Any, Any], features_file: Path | None = None, queries_file: Path | None = None
) -> EvaluationReport:
    """Encode all held-out images with the weights of the run's result, and run every search.

    Args:
        run: With at least one finished round.
        features_file: Where to write the features of the test images.
        queries_file: Where to write what each query found.

    Raises:
        DataError: Features are asked for, and the data set names no test images.
    """
    measurement = measure_result(run, keep_queries=queries_file is not None)
    test = run.dataset.test
    if (features_file or queries_file) and (test is None or measurement.features is None):
        raise DataError("the data set names no test images", hint="leave --features and --per-query out")
    if features_file is not None and test is not None and measurement.features is not None:
        write_features(features_file, measurement.features, test)
    if queries_file is not None:
        write_queries(queries_file, measurement.results)
    return measurement.report


def finish(run: Run[Any, Any]) -> EvaluationReport | None:
    """Close the record of a complete run: its last round is the result, or the round that a score chose.

    Returns:
        What it retrieves; None where the data set names no images to measure by.
    """
    record = run.record.folder.read_evaluation()
    report = None if record is None else EvaluationReport.from_dict(record)
    if report is not None and report.last is None and run.config.evaluation.selection != "last":
        report = measure_result(run, report).report
    export_result(run)
    run.record.finish(report)
    return report


def draw(
    run: ClusterRun,
    round_: Round,
    features: PerModality[FeatureBank],
    labels: PerModality[Labelling],
    matching: Matching,
    text: PerModality[TextPrototypes] | None,
) -> None:
    """Draw the round's figures, if figures are wanted: nothing reads them back."""
    draw_clusters(run, round_, features, labels, matching)
    if text is not None:
        draw_texts(run, round_, text.map(lambda one: one.features), same_order=False)


def log_round(
    run: ClusterRun,
    round_: Round,
    labels: PerModality[Labelling],
    matching: Matching,
    losses: dict[str, float],
    report: EvaluationReport | None,
) -> None:
    """Record the round: labels, checkpoint (from here on it counts), metrics, MLflow, a line at the terminal."""
    row = describe_round(run, round_, labels, matching, losses, report)
    draw_learning(run, round_, row)
    run.finish_round(round_, row, labels.map(lambda labelling: labelling.labels), report)


def _swap(run: ClusterRun, round_: Round) -> CrossModalSwap | None:
    settings = run.config.swap
    if settings.mode == "off" or round_.epoch < settings.start:
        return None
    return CrossModalSwap(
        mode=settings.mode,
        trigger=settings.trigger,
        scale=settings.scale,
        min_similarity=settings.min_similarity,
        every=settings.every,
    )
