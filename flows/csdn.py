"""The supervised method CSDN as a flow: texts for people, their fusion, then rounds of training on images."""

from types import ModuleType

from prefect import flow

from flows.distributed import run_body
from flows.prefect_local import cancelled_if_stopped
from pipeline.config.csdn import CsdnConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.open import open_run


@flow(name="csdn", flow_run_name="{config.name}", persist_result=False, on_crashed=[cancelled_if_stopped])
def csdn(config: CsdnConfig) -> EvaluationReport | None:
    """Train with identities, starting where an interrupted run of the same configuration ended.

    Args:
        config: The resolved experiment.

    Returns:
        What the run retrieves; None where the data set names no images to measure by.
    """
    return run_body(run_person_rounds, config)


def run_person_rounds(config: CsdnConfig, stage: ModuleType) -> EvaluationReport | None:
    """The method itself.

    Args:
        config: The resolved experiment.
        stage: Where the stages come from: `flows.tasks`, `pipeline.methods.csdn.stages` to do without Prefect, or
            `pipeline.following` on a process that is not the first.
    """
    with open_run(config) as run:
        for round_ in run.rounds_left():
            match round_.stage:
                case "prompts":
                    losses = stage.learn_person_texts(run, round_)
                case "fusion":
                    losses = stage.fuse_texts(run, round_)
                case _:
                    losses = stage.train_on_people(run, round_)
            report = stage.evaluate(run, round_) if run.evaluation_due(round_) else None
            stage.log_image_round(run, round_, losses, report)
        result: EvaluationReport | None = stage.finish(run)
        return result
