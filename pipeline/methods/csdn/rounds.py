"""CSDN from top to bottom: text prototypes of people, their fusion, then epochs of training on images."""

from pipeline.evaluation.report import EvaluationReport
from pipeline.methods.csdn.stages import fuse_texts, learn_prompts, log_round, train
from pipeline.methods.csdn.state import CsdnRun
from pipeline.runs.stages import evaluate, finish


def run_rounds(run: CsdnRun) -> EvaluationReport | None:
    """Train with identities, from the last finished round to the end.

    Stages `prompts` and `fusion` are one round each, where losses use them; `image` has one round an epoch.

    Source: Yu et al., IEEE TMM 2025 (CSDN): its stages 1, 2 and 3.
    """
    for round_ in run.rounds_left():
        texts, fused = run.state.method.texts, run.state.method.fused
        match round_.stage:
            case "prompts":
                texts, losses = learn_prompts(run)
            case "fusion":
                fused, losses = fuse_texts(run, texts)
            case _:
                losses = train(run, texts, fused)
        report = evaluate(run) if run.evaluation_due() else None
        log_round(run, texts, fused, losses, report)
    return finish(run)
