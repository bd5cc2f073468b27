"""Find the clusters of a round: of each modality alone or of both together, with the refinements of the settings."""

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from clustering.joint import JointClusters, split_by_modality
from clustering.labelling import Labelling
from clustering.matching import Assign
from clustering.neighbour_votes import soft_labels
from clustering.relabelling import assign_outliers, relabel_by_density
from models.encoder import Head
from models.modality import PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import Round
from pipeline.config.labelling import LabellingConfig
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.clusters import (
    Clusters,
    Vectors,
    label_modality,
    label_together,
    match_found,
    match_jointly,
    pack_labelling,
    unpack_labelling,
    usable_labels,
    warn_of_anomalies,
)
from pipeline.methods.cclnet.state import CclnetRun, DescribedClusters
from pipeline.methods.cclnet.targets import Targets, hard_targets, soft_targets
from pipeline.runtime.seeds import numpy_generator

logger = logging.getLogger(__name__)


def find_clusters(run: CclnetRun, features: PerModality[FeatureBank], assign: Assign | None) -> Clusters:
    """Cluster the training images and pair clusters of the modalities; `assign` pairs them in place of the settings."""
    config, vectors = run.config, features.map(lambda bank: bank.vectors)
    clusters = _cluster_jointly(run, vectors, run.round) if assign is None else None
    if clusters is None:
        found = _relabelled(vectors, _label(run, features), config.labelling)
        usable = usable_labels(found, run.state.method.clusters, config.labelling, config.batches.clusters_per_batch)
        clusters = match_found(vectors, usable, config.matching, assign)
    return with_targets(clusters, vectors, config.labelling)


def clusters_for_export(run: CclnetRun) -> DescribedClusters:
    """Clusters of the current encoder's features, found as those of the last finished round.

    A modality without any keeps those of that round.
    """
    features, before = run.extract_training_features(Head.NECK), run.state.method.clusters
    assert before is not None, "a round of stage `prepare` is finished"
    config, vectors = run.config, features.map(lambda bank: bank.vectors)
    clusters = _cluster_jointly(run, vectors, run.rounds[run.state.completed - 1])
    if clusters is None:
        found = _relabelled(vectors, _label(run, features), config.labelling).map_with(
            lambda new, old: new if new.clustering.num_clusters else replace(new, clustering=old), before
        )
        clusters = match_found(vectors, found, config.matching)
    return with_targets(clusters, vectors, config.labelling).described(config)


def with_targets(clusters: Clusters, vectors: Vectors, settings: LabellingConfig) -> Clusters:
    """Let outliers join near clusters with half a weight, and soften targets by neighbours, where the settings do.

    Prototypes and pairs stay those of the clusters without the outliers that join.
    """
    if settings.outliers == "drop" and settings.soft == "none":
        return clusters
    weights = clusters.labels.map(lambda labels: np.ones(len(labels), np.float32))
    if settings.outliers == "assign":
        assigned = vectors.map_with(assign_outliers, clusters.clusterings)
        found = clusters.found.map_with(lambda one, new: replace(one, clustering=new.clustering), assigned)
        clusters, weights = replace(clusters, found=found), assigned.map(lambda one: one.weights)

    def targets(one: Labelling) -> Targets:
        labels = one.clustering.labels
        if settings.soft == "none":
            return hard_targets(labels)
        return soft_targets(soft_labels(one.ranks[:, : settings.soft_neighbours], labels, labels))

    goals = clusters.found.map(targets).map_with(Targets.scaled, weights)
    return replace(clusters, targets=goals)


def _label(run: CclnetRun, features: PerModality[FeatureBank]) -> PerModality[Labelling]:
    settings = PerModality(run.config.labelling.visible, run.config.labelling.infrared)
    return features.map_with(
        lambda bank, own: unpack_labelling(
            run.processes.from_rank_zero(lambda: pack_labelling(label_modality(bank, own, run.device)))
        ),
        settings,
    )


def _cluster_jointly(run: CclnetRun, vectors: Vectors, round_: Round) -> Clusters | None:
    """One clustering of both modalities; None where the settings have none, or its clusters hold one modality each."""
    settings = run.config.labelling
    if settings.space == "per_modality" or round_.epoch < settings.start:
        return None
    rows = _visible_subset(run.config, round_, len(vectors.visible))
    some = PerModality(vectors.visible if rows is None else vectors.visible[rows], vectors.infrared)
    packed = run.processes.from_rank_zero(lambda: pack_labelling(label_together(some, settings.joint, run.device)))
    joint = unpack_labelling(packed)
    parts = split_by_modality(joint.clustering, *vectors, visible_rows=rows)
    if problem := _unusable(parts, settings.min_two_modality_share):
        logger.info("round %d clusters each modality alone: %s", round_.number, problem)
        return None
    clusters = match_jointly(vectors, joint, parts, run.config.matching)
    for modality, labelling in clusters.found.items():
        warn_of_anomalies(labelling, modality, settings, settings.joint, run.config.batches.clusters_per_batch)
    return clusters


def _unusable(parts: JointClusters, least_share: float) -> str | None:
    """What is wrong with a joint clustering, if it cannot be used."""
    fewest = min(parts.visible.num_clusters, parts.infrared.num_clusters)
    if fewest < 2:
        return f"the joint clustering has only {fewest} with images of one modality"
    if parts.two_modality_share < least_share:
        return f"{parts.two_modality_share:.0%} of the joint clusters hold both, fewer than {least_share:.0%}"
    return None


def _visible_subset(config: CclnetConfig, round_: Round, num_images: int) -> Int64[np.ndarray, " some"] | None:
    """The visible images of a joint clustering, ascending; None for all of them."""
    share = config.labelling.subset
    if share == 1:
        return None
    generator = numpy_generator(config.seed, "labelling", "subset", round_.number)
    return np.sort(generator.choice(num_images, max(1, round(share * num_images)), replace=False))


def _relabelled(vectors: Vectors, found: PerModality[Labelling], settings: LabellingConfig) -> PerModality[Labelling]:
    if settings.relabel == "none":
        return found

    def moved(own: Labelling, rows: Float32[np.ndarray, "_ dim"]) -> Labelling:
        return replace(own, clustering=relabel_by_density(rows, own.clustering, densest=settings.densest))

    return found.map_with(moved, vectors)
