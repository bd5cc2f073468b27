"""The unsupervised method, CCLNet, as a flow: one round reads from top to bottom."""

from types import ModuleType

from prefect import flow

from flows.distributed import run_body
from flows.prefect_local import cancelled_if_stopped
from pipeline.config.shared import ExperimentConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.cclnet.method import prompts_due, text_prototypes
from pipeline.runs.open import open_run


@flow(name="unsupervised", flow_run_name="{config.name}", persist_result=False, on_crashed=[cancelled_if_stopped])
def unsupervised(config: ExperimentConfig) -> EvaluationReport | None:
    """Train without identities, starting where an interrupted run of the same configuration ended.

    Args:
        config: The resolved experiment.

    Returns:
        What the run retrieves; None where the data set names no images to measure by.
    """
    return run_body(run_rounds, config)


def run_rounds(config: ExperimentConfig, stage: ModuleType) -> EvaluationReport | None:
    """The method itself.

    Args:
        config: The resolved experiment.
        stage: Where the stages of a round come from: `flows.tasks`, `pipeline.methods.cclnet.stages` to do without
            Prefect, or `pipeline.following` on a process that is not the first.
    """
    with open_run(config) as run:
        for round_ in run.rounds_left():
            features = stage.extract(run, round_)
            labels = stage.pseudo_label(run, round_, features)
            matching = stage.match(run, round_, features, labels)
            text = (
                stage.learn_prompts(run, round_, labels) if prompts_due(run, round_) else text_prototypes(run, round_)
            )
            losses = stage.train(run, round_, features, labels, text)
            stage.draw(run, round_, features, labels, matching, text)
            report = stage.evaluate(run, round_) if run.evaluation_due(round_) else None
            stage.log_round(run, round_, labels, matching, losses, report)
        result: EvaluationReport | None = stage.finish(run)
        return result
