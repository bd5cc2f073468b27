"""EEES from top to bottom: captions are encoded once, then images are trained on with them."""

from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.eees.stages import encode_captions, log_round, train
from pipeline.methods.eees.state import EeesRun
from pipeline.runs.stages import evaluate, finish


def run_rounds(run: EeesRun) -> EvaluationReport | None:
    """Train with identities and captions, from the last finished round to the end; a round is an epoch."""
    captions = encode_captions(run)
    for _ in run.rounds_left():
        losses = train(run, captions)
        report = evaluate(run) if run.evaluation_due() else None
        log_round(run, captions, losses, report)
    return finish(run)
