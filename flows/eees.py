"""The supervised method EEES as a flow: captions are encoded once, then images are trained on with them."""

from types import ModuleType

from prefect import flow

from flows.distributed import run_body
from flows.prefect_local import cancelled_if_stopped
from pipeline.config.eees import EeesConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.runs.open import open_run


@flow(name="eees", flow_run_name="{config.name}", persist_result=False, on_crashed=[cancelled_if_stopped])
def eees(config: EeesConfig) -> EvaluationReport | None:
    """Train with identities and captions, starting where an interrupted run of the same configuration ended.

    Args:
        config: The resolved experiment.

    Returns:
        What the run retrieves; None where the data set names no images to measure by.
    """
    return run_body(run_caption_rounds, config)


def run_caption_rounds(config: EeesConfig, stage: ModuleType) -> EvaluationReport | None:
    """The method itself.

    Args:
        config: The resolved experiment.
        stage: Where the stages come from: `flows.tasks`, `pipeline.methods.eees.stages` to do without Prefect, or
            `pipeline.following` on a process that is not the first.
    """
    with open_run(config) as run:
        captions = stage.encode_captions(run)
        for round_ in run.rounds_left():
            losses = stage.train_with_captions(run, round_, captions)
            report = stage.evaluate(run, round_) if run.evaluation_due(round_) else None
            stage.log_image_round(run, round_, losses, report)
        result: EvaluationReport | None = stage.finish(run)
        return result
