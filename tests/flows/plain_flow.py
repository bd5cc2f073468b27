"""The flow without Prefect, for tests that start many runs or kill them: the same composition of plain functions."""

import pytest

from flows import unsupervised as module
from pipeline.config import ExperimentConfig
from pipeline.evaluation.report import EvaluationReport

STAGES = ("extract", "pseudo_label", "match", "learn_prompts", "train", "evaluate", "log_round")


def run_plainly(config: ExperimentConfig) -> EvaluationReport:
    """Run the unsupervised flow's own body."""
    with pytest.MonkeyPatch.context() as patch:
        for stage in STAGES:
            patch.setattr(module, stage, getattr(module, stage).fn)
        return module.unsupervised.fn(config)
