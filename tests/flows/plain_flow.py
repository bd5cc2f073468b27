"""The flow without Prefect, for tests that start many runs or kill them."""

from flows.unsupervised import run_rounds
from pipeline import stages
from pipeline.config import ExperimentConfig
from pipeline.evaluation.report import EvaluationReport


def run_plainly(config: ExperimentConfig) -> EvaluationReport:
    """The unsupervised flow's own body, with the stages as plain functions."""
    return run_rounds(config, stages)
