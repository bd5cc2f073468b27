"""The record of a CCLNet round: numbers, by their names in MLflow, and figures."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from clustering.labelling import Labelling
from models.modality import PerModality
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.schedule import learning_rate_of
from pipeline.methods.cclnet.state import CclnetRun, TextPrototypes
from pipeline.reports import cluster_figures as figures
from pipeline.reports.cluster_figures import principal_plane, sample_map, sample_pairs
from pipeline.runs.figures import SHOWN, draw_text_similarity
from pipeline.runs.stages import rank_zero, record_round
from pipeline.runtime.seeds import numpy_generator


@rank_zero
def record(
    run: CclnetRun,
    features: PerModality[FeatureBank],
    clusters: Clusters,
    text: PerModality[TextPrototypes] | None,
    trained: Mapping[str, float],
    report: EvaluationReport | None,
) -> None:
    """Draw the figures of the completed round, and write its numbers, labels and checkpoint."""
    if run.config.execution.figures:
        _draw_clusters(run, features, clusters)
    if text is not None:
        draw_text_similarity(run, text.map(lambda one: one.features), same_order=False)
    numbers: dict[str, Any] = {
        "train/learning_rate": learning_rate_of(run.round, run.config.optimisation, run.config.swap)
    }
    numbers |= {f"train/{name}": value for name, value in trained.items()}
    for modality, labelling in clusters.found.items():
        numbers |= _describe_labels(f"labels/{modality}", labelling)
    numbers["labels/matched_share"] = clusters.matched_share
    numbers |= run.evaluator.diagnose(clusters.labels, clusters.matching)
    record_round(run, numbers, report, labels=clusters.clusterings, search=clusters.found.visible.search)


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
