"""Training without Prefect: for notebooks, tests and benchmarks, and for the ranks of a flow."""

from pipeline.config.experiment import AnyConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods import method_of
from pipeline.methods.spec import MethodSpec
from pipeline.runs.open import open_run


def train(config: AnyConfig, method: MethodSpec | None = None) -> EvaluationReport | None:
    """Train a run to its end; an interrupted run of the same settings goes on after its last finished round.

    Args:
        config: The resolved settings.
        method: Their method; one of `METHODS` when None.

    Returns:
        What the run retrieves; None where the data set names no images to measure by, and on ranks other than 0.
    """
    method = method or method_of(config)
    with open_run(config, method) as run:
        return method.rounds(run)
