"""The numbers that a round leaves behind. Only here are true identities seen, and nothing reads them back."""

from typing import Any

from clustering.labelling import Labelling
from clustering.matching import Matching
from models.modality import PerModality
from pipeline.config.rounds import Round
from pipeline.evaluation.diagnostics import label_diagnostics, matching_diagnostics
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.cclnet.method import ClusterRun
from pipeline.methods.cclnet.schedule import learning_rate_of


def describe_round(
    run: ClusterRun,
    round_: Round,
    labels: PerModality[Labelling],
    matching: Matching,
    losses: dict[str, float],
    report: EvaluationReport | None,
) -> dict[str, Any]:
    """One row of `metrics.jsonl`: names as MLflow shows them, values that depend on configuration and data alone."""
    row: dict[str, Any] = {"round": round_.number, "stage": round_.stage, "epoch": round_.epoch}
    row["train/learning_rate"] = learning_rate_of(round_, run.config.optimisation, run.config.swap)
    row |= {f"train/loss/{name}": value for name, value in losses.items()}
    for modality, labelling in labels.items():
        row |= _describe_labels(f"labels/{modality}", labelling)
    clusters = labels.map(lambda labelling: labelling.labels.num_clusters)
    row["labels/matched_share"] = 2 * len(matching.visible) / (clusters.visible + clusters.infrared)
    row |= _diagnose(run, labels, matching)
    if report is not None:
        row |= report.metrics()
    return row


def _describe_labels(prefix: str, labelling: Labelling) -> dict[str, float]:
    labels = labelling.labels
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


def _diagnose(run: ClusterRun, labels: PerModality[Labelling], matching: Matching) -> dict[str, float]:
    truth = run.dataset.training_people(run.images.training.map(lambda images: images.rows))
    if not all(truth.map(lambda people: people.known)):
        return {}  # a user's own images, of which nobody has said whom they show
    people = truth.map(lambda people: people.ids)
    pseudo = labels.map(lambda labelling: labelling.labels.labels)
    row: dict[str, float] = {}
    for modality, ids in people.items():
        row |= {
            f"diagnostics/{modality}/{name}": value for name, value in label_diagnostics(pseudo[modality], ids).items()
        }
    return row | {
        f"diagnostics/matching/{name}": value for name, value in matching_diagnostics(matching, pseudo, people).items()
    }
