"""The stages of a process that is not the first: it works along where all do, and leaves the rest to the first.

A flow's body takes its stages from here on such a process: it meets the first process at the same places, has the same
labels, texts, memories and weights after each round, and writes nothing.
"""

from typing import Any

from pipeline.config.rounds import Round
from pipeline.methods.cclnet.stages import extract, learn_prompts, pseudo_label, train
from pipeline.methods.csdn.stages import fuse_texts, learn_person_texts, train_on_people
from pipeline.methods.eees.stages import encode_captions, train_with_captions
from pipeline.runs.run import Run

__all__ = [
    "draw", "encode_captions", "evaluate", "extract", "finish", "fuse_texts", "learn_person_texts", "learn_prompts",
    "log_image_round", "log_round", "match", "pseudo_label", "train", "train_on_people", "train_with_captions",
]  # fmt: skip


def match(run: Run[Any, Any], round_: Round, *_: Any) -> None:
    """Only the record of a round needs the pairs of clusters."""


def evaluate(run: Run[Any, Any], round_: Round) -> None:
    """The first process measures alone."""


def draw(run: Run[Any, Any], round_: Round, *_: Any) -> None:
    """The first process draws."""


def log_round(run: Run[Any, Any], round_: Round, *_: Any) -> None:
    """Count the round as finished; the first process writes it down."""
    run.state.completed = round_.number


def log_image_round(run: Run[Any, Any], round_: Round, *_: Any) -> None:
    """Count the round as finished, as `log_round` does."""
    log_round(run, round_)


def finish(run: Run[Any, Any]) -> None:
    """The first process has the result."""
