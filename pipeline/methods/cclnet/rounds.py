"""CCLNet, one round from top to bottom: extract, cluster, learn prompts, train, evaluate, log."""

from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.cclnet.schedule import clusters_to_describe, prompts_due
from pipeline.methods.cclnet.stages import begin_stage, cluster, learn_prompts, log_round, train
from pipeline.methods.cclnet.state import CclnetRun
from pipeline.runs.stages import evaluate, extract, finish


def run_rounds(run: CclnetRun) -> EvaluationReport | None:
    """Train without identities, from the last finished round to the end.

    Stage `prepare` trains against cluster memories alone, stage `clip` against text prototypes of clusters as well.

    Source: Chen et al., ACM MM 2023 (CCLNet). Stage `prepare` is its stage 0, prompt learning stage 1, `clip` stage 2.
    """
    for round_ in run.rounds_left():
        if round_.first_of_stage:
            begin_stage(run)
        features = extract(run)
        clusters = cluster(run, features)
        text = run.state.method.text
        if prompts_due(run.config, round_, clusters, text):
            text = learn_prompts(run, clusters_to_describe(run, clusters))
        losses = train(run, clusters, text)
        report = evaluate(run) if run.evaluation_due() else None
        log_round(run, features, clusters, text, losses, report)
    return finish(run)
