"""One folder a method; what two methods share is beside the folders. Nothing here imports Prefect."""

from pipeline.config.experiment import AnyConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.cclnet.method import CCLNET
from pipeline.methods.csdn.method import CSDN
from pipeline.methods.eees.method import EEES
from pipeline.methods.spec import MethodSpec
from pipeline.runs.open import open_run

__all__ = ["METHODS", "MethodSpec", "method_of", "train"]

METHODS: tuple[MethodSpec, ...] = (CCLNET, CSDN, EEES)
"""Every method, in the order of `pipeline.config.experiment.CONFIGS`."""


def method_of(config: AnyConfig) -> MethodSpec:
    """The method of resolved settings."""
    return next(method for method in METHODS if isinstance(config, method.config))


def train(config: AnyConfig, method: MethodSpec | None = None) -> EvaluationReport | None:
    """Train without Prefect: for notebooks, tests and benchmarks, and for the ranks of a flow.

    An interrupted run of the same settings resumes after its last finished round. Returns its result; None if the data
    set has no images for evaluation, and on ranks other than 0.
    """
    method = method or method_of(config)
    with open_run(config, method) as run:
        return method.rounds(run)
