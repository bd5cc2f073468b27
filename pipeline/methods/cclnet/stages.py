"""The stages of a CCLNet round as plain functions of values."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from clustering.dbscan import Clustering
from clustering.labelling import Labelling
from clustering.matching import Assign
from models.encoder import Head
from models.memory import MemoryUpdate, PrototypeMemory, memory_update
from models.modality import PerModality
from models.swap import CrossModalSwap
from pipeline.config.cclnet import CclnetConfig
from pipeline.data.samplers.sampling import cross_modal_batches
from pipeline.data.transforms.augmentation import Transform, training_views
from pipeline.data.transforms.channel_augmentation import channel_views
from pipeline.errors import CheckpointError, DegenerateClustering
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank
from pipeline.methods.cclnet import prompts
from pipeline.methods.cclnet.cameras import camera_contrasts, split_by_camera, warn_of_single_cameras
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.contrast import CrossModal, HardPrototypes, partners_of
from pipeline.methods.cclnet.finding import clusters_for_export, find_clusters
from pipeline.methods.cclnet.objective import TextLoss, cluster_objective
from pipeline.methods.cclnet.quality import describe_clusters, describe_quality
from pipeline.methods.cclnet.schedule import agreement_with_text, learning_rate_of, starts_anew
from pipeline.methods.cclnet.state import CclnetRun, DescribedClusters, TextPrototypes, pack_texts, unpack_texts
from pipeline.reports import cluster_figures as figures
from pipeline.reports.cluster_figures import principal_plane, sample_map, sample_pairs
from pipeline.runs.figures import SHOWN, draw_text_similarity, draw_typical_pairs
from pipeline.runs.stages import complete_round, rank_zero, record_round, stage
from pipeline.runtime.seeds import numpy_generator, torch_generator
from pipeline.training.loop import Compute, EpochSteps, run_epoch
from pipeline.training.objective import Term
from pipeline.training.optimiser import set_learning_rate

logger = logging.getLogger(__name__)


@stage(uses_device=True)
def begin_stage(run: CclnetRun) -> None:
    """Give a later stage its initial weights and a new optimiser, and choose the clusters that prompts describe.

    The first stage uses those of the opened run.
    """
    config, state, round_ = run.config, run.state, run.round
    if round_.number == 1:
        warn_of_single_cameras(run.images, config.memory)
        return
    if config.stages.label_export == "after_training":
        state.method.exported = clusters_for_export(run)
    if not config.stages.carry_over:
        state.encoder = run.new_encoder()
    state.stage = round_.stage
    state.optimiser = run.new_optimiser(round_.stage)


@stage(uses_device=True)
def cluster(run: CclnetRun, features: PerModality[FeatureBank], assign: Assign | None = None) -> Clusters:
    """Cluster the training images, by default each modality alone, and pair visible with infrared clusters.

    `assign` pairs clusters here and in swapping, in place of `matching.method`.
    """
    found = find_clusters(run, features, assign)
    return split_by_camera(found, features.map(lambda bank: bank.vectors), run.images, run.config.memory)


@stage(uses_device=True)
def learn_prompts(run: CclnetRun, clusters: DescribedClusters) -> PerModality[TextPrototypes] | None:
    """Learn one text prototype a cluster; a refresh that finds outliers only keeps the previous ones.

    They are saved in a file of their own, so that a run killed later in the round does not learn them again.
    """
    round_, previous = run.round, run.state.method.text
    labels = clusters.labels
    packed = run.processes.from_rank_zero(lambda: run.record.folder.load_pending(round_.number, "texts"))
    if packed is None:
        features = _prompt_features(run)
        try:
            prompts.refuse_nothing(labels)
        except DegenerateClustering as error:
            if round_.first_of_stage:
                raise
            logger.warning("prompts are not refreshed in round %d: %s", round_.number, error.message)
            return previous
        packed = run.processes.from_rank_zero(lambda: pack_texts(_learn_texts(run, features, clusters)))
        _keep_texts(run, packed)
    try:
        return unpack_texts(packed, run.device)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "the text prototypes in `pending` are damaged", hint="remove that folder of the run: they are learned again"
        ) from error


@stage(uses_device=True)
def train(
    run: CclnetRun,
    clusters: Clusters,
    text: PerModality[TextPrototypes] | None,
    extra_terms: Sequence[Term] = (),
    update: MemoryUpdate | None = None,
) -> dict[str, float]:
    """Train the encoder for one epoch against the memories of this round's clusters.

    `extra_terms` are further losses; `update` moves prototypes in place of `memory.update`.

    Returns mean losses as `loss/...`; `swap/kept_share` is the share of the round's pairs still swapped at the end.
    """
    config, round_ = run.config, run.round
    schedule = (config.optimisation, config.swap)
    if starts_anew(round_, *schedule):
        run.state.optimiser.state.clear()
    set_learning_rate(run.state.optimiser, learning_rate_of(round_, *schedule))
    seed = (config.seed, "train", round_.number)
    swap = _swap(run, clusters)

    def memories() -> PerModality[PrototypeMemory]:
        return clusters.prototypes.map(lambda rows: PrototypeMemory(torch.from_numpy(rows).to(run.device)))

    memory, across = config.memory, _begins_across(run, clusters)
    objective = cluster_objective(
        clusters.labels,
        memories(),
        temperature=memory.temperature,
        update=update or memory_update(memory.update, memory.momentum),
        swap=swap,
        text=_text_loss(text, config, across=across),
        cross_modal=_cross_modal(config, clusters) if across else None,
        hard=HardPrototypes(memories(), memory.momentum, memory.hard_margin) if memory.hard else None,
        targets=clusters.targets,
        cameras=camera_contrasts(clusters, memory, run.device),
        extra_terms=extra_terms,
    )
    batches = cross_modal_batches(
        clusters.labels,
        clusters_per_batch=config.batches.clusters_per_batch,
        images_per_cluster=config.batches.images_per_cluster,
        replacement=config.batches.replacement,
        generator=numpy_generator(*seed, "batches"),
    )
    steps = EpochSteps(
        pixels=run.training_pixels,
        positions=batches.positions,
        views=_views(config, torch_generator(*seed, "augment")),
        groups=batches.clusters_per_batch,
        setting="batches.images_per_cluster",
    )
    compute = Compute(run.device, run.precision, run.processes)
    losses = run_epoch(run.state.encoder, run.state.optimiser, objective, steps, compute)
    numbers = {f"loss/{name}": value for name, value in losses.items()}
    return numbers if swap is None else numbers | {"swap/kept_share": swap.pairing.kept_share}


@stage(ends_round=True)
def log_round(
    run: CclnetRun,
    features: PerModality[FeatureBank],
    clusters: Clusters,
    text: PerModality[TextPrototypes] | None,
    trained: Mapping[str, float],
    report: EvaluationReport | None,
) -> None:
    """Store clusters and text prototypes in the state, and record the round, which counts from its checkpoint on."""
    state, round_, before = run.state.method, run.round, run.state.method.clusters
    at_start = state.text or text  # a refresh has replaced those that the clusters were compared with
    agreement = None if at_start is None else agreement_with_text(at_start, clusters)
    state.clusters, state.text = clusters.clusterings, text
    if round_.stage == "prepare" and round_.last_of_stage:
        state.exported = clusters.described(run.config)
    complete_round(run, report)
    record(run, features, clusters, text, trained, report, before, agreement)


@rank_zero
def _keep_texts(run: CclnetRun, packed: Mapping[str, Any]) -> None:
    run.record.folder.save_pending(run.round.number, "texts", packed)


def _prompt_features(run: CclnetRun) -> PerModality[torch.Tensor]:
    """Projected features for prompt learning, of the stage's initial encoder or of the current one."""
    initial = run.round.first_of_stage or run.config.prompts.feature_source == "initial"
    encoder = run.new_encoder() if initial and not run.config.stages.carry_over else None
    banks = run.extract_training_features(Head.PROJECTION, encoder)
    return banks.map(lambda bank: torch.from_numpy(bank.vectors).to(run.device))


def _learn_texts(
    run: CclnetRun, features: PerModality[torch.Tensor], clusters: DescribedClusters
) -> PerModality[TextPrototypes]:
    config, seed, round_ = run.config.prompts, run.config.seed, run.round
    first = round_.first_of_stage
    if (config.shared or config.cross_weight > 0) and len(clusters.pairs.visible) == 0:
        logger.info("the prompts of round %d know no pairs for prompts.shared and cross_weight", round_.number)
    return prompts.learn_prompts(
        features,
        clusters.labels,
        run.text_tower,
        pairs=clusters.pairs,
        confidence=clusters.confidence,
        shared=config.shared,
        scale=config.scale if config.logits == "cosine" else None,
        num_context=config.num_context,
        epochs=config.epochs if first else config.refresh_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_epochs=config.warmup_epochs if first else min(1, config.warmup_epochs),
        weight_decay=config.weight_decay,
        previous=run.state.method.text if config.init == "warm" and not first else None,
        init_generator=lambda modality: torch_generator(seed, "init", "prompts", modality, round_.number),
        batch_generator=lambda epoch: numpy_generator(seed, "batches", "prompts", round_.number, epoch),
    )


def _views(config: CclnetConfig, generator: torch.Generator) -> PerModality[tuple[Transform, ...]]:
    """One view of each image; with `augmentation.channel = "exchange"`, visible images have a second one."""
    settings, normalisation = config.augmentation, config.images.normalisation
    if settings.channel == "exchange":
        moves = settings.recipe == "cclnet_sysu"
        return channel_views(
            recipe="channels",
            padding=settings.padding if moves else 0,
            mirrored=moves,
            normalisation=normalisation,
            generator=generator,
        )
    return training_views(
        recipe=settings.recipe, padding=settings.padding, normalisation=normalisation, generator=generator
    )


def _text_loss(text: PerModality[TextPrototypes] | None, config: CclnetConfig, *, across: bool) -> TextLoss | None:
    """`across`: whether the texts of the other modality classify images, too."""
    if text is None:
        return None
    settings = config.prompts
    return TextLoss(
        text,
        settings.text_weight,
        settings.smoothing,
        scale=settings.scale if settings.logits == "cosine" else None,
        cross_weight=settings.cross_weight if across else 0.0,
        weighted=config.loss.confidence,
    )


def _begins_across(run: CclnetRun, clusters: Clusters) -> bool:
    """Whether the round has terms across modalities: the settings have some, and its pairs are good enough."""
    settings = run.config.loss
    if not run.config.has_cross_modal_terms or run.round.epoch < settings.start:
        return False
    if clusters.mutual_share < settings.min_mutual_share:
        logger.info(
            "no terms across modalities in round %d: %.0f%% of the clusters are in mutual pairs, fewer than %.0f%%",
            run.round.number, 100 * clusters.mutual_share, 100 * settings.min_mutual_share,
        )  # fmt: skip
        return False
    return True


def _cross_modal(config: CclnetConfig, clusters: Clusters) -> CrossModal | None:
    """Contrast across modalities; None where the settings have none."""
    settings = config.loss
    if settings.contrast == "per_modality":
        return None
    partners = partners_of(clusters, config.memory.temperature, weighted=settings.confidence)
    return CrossModal(partners, settings.contrast, settings.cross_weight, settings.distillation)


def _swap(run: CclnetRun, clusters: Clusters) -> CrossModalSwap | None:
    settings, matching = run.config.swap, run.config.matching
    if settings.mode == "off" or run.round.epoch < settings.start:
        return None
    return CrossModalSwap(
        mode=settings.mode,
        trigger=settings.trigger,
        scale=settings.scale,
        min_similarity=matching.floor,
        every=settings.every,
        assign=clusters.assign,
        pairs=PerModality(clusters.matching.visible, clusters.matching.infrared),
    )


@rank_zero
def record(
    run: CclnetRun,
    features: PerModality[FeatureBank],
    clusters: Clusters,
    text: PerModality[TextPrototypes] | None,
    trained: Mapping[str, float],
    report: EvaluationReport | None,
    before: PerModality[Clustering] | None = None,
    agreement: float | None = None,
) -> None:
    """Draw the figures of the completed round, and write its numbers, labels and checkpoint.

    `before` are the labels of the round before, `agreement` is that of the clusters with the prompts' ones.
    """
    vectors = features.map(lambda bank: bank.vectors)
    labels = describe_clusters(clusters, vectors)
    if run.config.execution.figures:
        _draw_clusters(run, features, clusters)
        draw_typical_pairs(run, labels)
    if text is not None:
        draw_text_similarity(run, text.map(lambda one: one.features), same_order=False)
    numbers: dict[str, Any] = {
        "train/learning_rate": learning_rate_of(run.round, run.config.optimisation, run.config.swap)
    }
    numbers |= {f"train/{name}": value for name, value in trained.items()}
    for modality, labelling in clusters.found.items():
        numbers |= _describe_labels(f"labels/{modality}", labelling)
    numbers |= describe_quality(clusters, labels, vectors, run.images.map(lambda some: some.cameras), before)
    if agreement is not None:
        numbers["labels/agreement_with_text"] = agreement
    numbers |= run.evaluator.diagnose(clusters.labels, clusters.pairs)
    record_round(run, numbers, report, labels=labels, search=clusters.found.visible.search)


def _describe_labels(prefix: str, labelling: Labelling) -> dict[str, float]:
    labels = labelling.clustering
    row = {
        f"{prefix}/clusters": float(labels.num_clusters),
        f"{prefix}/outlier_share": labels.outlier_share,
        f"{prefix}/largest_share": labels.largest_share,
    }
    if labelling.recall is not None:
        row[f"{prefix}/recall"] = labelling.recall
    for point in labelling.curve:
        at = f"{prefix}/eps_{point.eps:.2f}"
        row |= {
            f"{at}/clusters": float(point.clusters),
            f"{at}/outlier_share": point.outlier_share,
            f"{at}/largest_share": point.largest_share,
        }
    return row


def _draw_clusters(run: CclnetRun, features: PerModality[FeatureBank], clusters: Clusters) -> None:
    """Draw eps curve, cluster sizes, feature map and prototype similarity; under a second for any number of images."""
    number, settings = run.round.number, run.config.labelling
    save, title = partial(run.record.folder.save_figure, number), f"round {number}"
    curves = clusters.found.map(lambda labelling: labelling.curve)
    eps = PerModality(settings.visible.eps, settings.infrared.eps)
    if clusters.two_modality_share is not None:
        eps = PerModality(settings.joint.eps, settings.joint.eps)
    save("eps-curve", partial(figures.draw_eps_curve, curves, eps, title))
    sizes = clusters.labels.map(lambda some: np.bincount(some[some >= 0]))
    save("cluster-sizes", partial(figures.draw_cluster_sizes, sizes, title))
    generator = numpy_generator(run.config.seed, "figures", "map", number)
    sample = sample_map(clusters.labels, clusters.matching, generator)
    places, share = principal_plane(
        np.concatenate([features[modality].vectors[some.rows] for modality, some in sample.items()])
    )
    save("feature-map", partial(figures.draw_feature_map, places, sample, share, title))
    chosen = sample_pairs(clusters.matching, SHOWN)
    if len(chosen) == 0:
        return
    matching = clusters.matching
    visible = clusters.prototypes.visible[matching.visible[chosen]]
    infrared = clusters.prototypes.infrared[matching.infrared[chosen]]
    title = f"prototypes, {title}: {len(chosen)} of {len(matching.visible)} pairs"
    draw = partial(figures.draw_similarity, visible @ infrared.T, np.arange(len(chosen)), title, "matched")
    save("prototype-similarity", draw)
