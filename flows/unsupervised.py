"""The unsupervised method, CCLNet, as a flow: one round reads from top to bottom."""

from prefect import flow

from flows.tasks import evaluate, extract, learn_prompts, log_round, match, pseudo_label, train
from pipeline.config import ExperimentConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.opening import open_run


@flow(name="unsupervised", flow_run_name="{config.name}", persist_result=False)
def unsupervised(config: ExperimentConfig) -> EvaluationReport:
    """Train without identities, starting where an interrupted run of the same configuration ended.

    Args:
        config: The resolved experiment.

    Returns:
        What the last round's encoder retrieves.
    """
    with open_run(config) as run:
        for round_ in run.rounds_left():
            features = extract(run, round_)
            labels = pseudo_label(run, round_, features)
            matching = match(run, round_, features, labels)
            text = learn_prompts(run, round_, labels) if run.prompts_due(round_) else run.text_prototypes(round_)
            losses = train(run, round_, features, labels, text)
            report = evaluate(run, round_) if run.evaluation_due(round_) else None
            log_round(run, round_, labels, matching, losses, report)
        return run.finish()
