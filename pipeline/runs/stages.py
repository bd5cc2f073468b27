"""The stages that all methods share: extract, evaluate, finish; and what `log_round` writes."""

import logging
from collections.abc import Mapping
from typing import Any

from clustering.dbscan import Clustering
from models.encoder import Head
from models.modality import PerModality
from pipeline.evaluation.report import EvaluationReport
from pipeline.features import FeatureBank
from pipeline.reports import round_table
from pipeline.runs.export_result import export_result
from pipeline.runs.figures import draw_learning
from pipeline.runs.run import Run
from pipeline.runs.stage import rank_zero, stage
from pipeline.runtime.environment import peak_memory
from pipeline.training.state import SelectedRound

logger = logging.getLogger(__name__)


@stage(uses_device=True)
def extract(run: Run[Any, Any]) -> PerModality[FeatureBank]:
    """Encode all training images of both modalities with the weights at the start of the round."""
    return run.extract_training_features(Head.NECK)


@stage(uses_device=True)
@rank_zero
def evaluate(run: Run[Any, Any]) -> EvaluationReport:
    """Encode all held-out images once and run every search of the protocol; training never reads the result."""
    return run.evaluator.evaluate(run)


@stage(uses_device=True)
@rank_zero
def finish(run: Run[Any, Any]) -> EvaluationReport | None:
    """Close the record of a complete run, whose result is its last round, or the selected one.

    Returns the report of the result; None if the data set has no images for evaluation.
    """
    record = run.record.folder.read_evaluation()
    report = None if record is None else EvaluationReport.from_dict(record)
    if report is not None and report.last is None and run.config.evaluation.selection != "last":
        report = run.evaluator.evaluate_result(run, report)
    export_result(run)
    run.record.finish(report)
    return report


def complete_round(run: Run[Any, Any], report: EvaluationReport | None) -> None:
    """Count the round as finished; if a score selects the result, keep the encoder of the (first) best round."""
    run.state.completed, run.state.stage = run.round.number, run.round.stage
    selection = run.config.evaluation.selection
    if report is None or selection == "last":
        return
    score = report.validation[0].mean.map if selection == "val" else report.searches[0].mean.r1
    if run.state.selected is None or score > run.state.selected.score:
        weights = {name: tensor.detach().cpu().clone() for name, tensor in run.state.encoder.state_dict().items()}
        run.state.selected = SelectedRound(run.round.number, score, weights)


def record_round(
    run: Run[Any, Any],
    numbers: Mapping[str, Any],
    report: EvaluationReport | None,
    *,
    labels: PerModality[Clustering] | None = None,
    search: str = "",
) -> None:
    """Write the completed round: labels, checkpoint, metrics, MLflow, a line at the terminal.

    `numbers` have their names in MLflow and depend on settings and data only; `search` is the method of the
    nearest-neighbour search.
    """
    round_ = run.round
    row = {"round": round_.number, "stage": round_.stage, "epoch": round_.epoch} | dict(numbers)
    if report is not None:
        row |= report.metrics()
    headline = run.evaluator.headline_search
    draw_learning(run, row, headline)
    run.state.metrics.append(row)
    seconds = run.clock.seconds()
    spent = {f"seconds/{name}": value for name, value in seconds.items()}
    run.state.timings.append({"search": search} | spent | peak_memory())
    run.record.finish_round(run.state, labels, report)
    logger.info(round_table.line(row, seconds["total"], headline))
