"""Which flow trains by which method."""

from collections.abc import Callable
from typing import Any

from flows.csdn import csdn, run_person_rounds
from flows.distributed import Body
from flows.eees import eees, run_caption_rounds
from flows.unsupervised import run_rounds, unsupervised
from pipeline.config.csdn import CsdnConfig
from pipeline.config.eees import EeesConfig
from pipeline.config.experiment import AnyConfig
from pipeline.config.shared import ExperimentConfig
from pipeline.evaluation.report import EvaluationReport


def train(config: AnyConfig) -> EvaluationReport | None:
    """Run the flow of the configuration's method."""
    match config:
        case CsdnConfig():
            return csdn(config)
        case EeesConfig():
            return eees(config)
        case ExperimentConfig():
            return unsupervised(config)


def body_of(config: AnyConfig) -> Body:
    """The rounds of that flow, without Prefect."""
    bodies: dict[str, Callable[..., Any]] = {
        "cclnet": run_rounds,
        "csdn": run_person_rounds,
        "eees": run_caption_rounds,
    }
    return bodies[config.method]
