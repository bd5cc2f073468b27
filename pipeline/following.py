"""The stages of a process that is not the first: it works along where all do, and leaves the rest to the first.

A flow's body takes its stages from here on such a process: it meets the first process at the same places, has the same
labels, texts, memories and weights after each round, and writes nothing.
"""

from typing import Any

from pipeline.experiment import Run
from pipeline.stages import extract, learn_prompts, pseudo_label, train
from pipeline.training.rounds import Round

__all__ = ["evaluate", "extract", "finish", "learn_prompts", "log_round", "match", "pseudo_label", "train"]


def match(run: Run, round_: Round, *_: Any) -> None:
    """Only the record of a round needs the pairs of clusters."""


def evaluate(run: Run, round_: Round) -> None:
    """The first process measures alone."""


def log_round(run: Run, round_: Round, *_: Any) -> None:
    """Count the round as finished; the first process writes it down."""
    run.state.completed = round_.number


def finish(run: Run) -> None:
    """The first process has the result."""
