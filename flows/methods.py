"""Which flow trains by which method."""

from collections.abc import Callable
from typing import Any

from flows.csdn import csdn, run_person_rounds
from flows.eees import eees, run_caption_rounds
from flows.processes import Body
from flows.unsupervised import run_rounds, unsupervised
from pipeline.any_config import AnyConfig
from pipeline.config import ExperimentConfig
from pipeline.csdn_config import CsdnConfig
from pipeline.eees_config import EeesConfig
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
