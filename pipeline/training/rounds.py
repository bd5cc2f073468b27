"""The schedule of a run: which round belongs to which stage."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["prepare", "clip", "prompts", "fusion", "image"]


@dataclass(frozen=True, slots=True)
class Round:
    """One pass of label, then train.

    `number` counts through the whole run from 1, `epoch` inside its stage; schedules and swapping follow `epoch`.
    """

    number: int
    stage: Stage
    epoch: int
    last_of_stage: bool

    @property
    def name(self) -> str:
        """The round as tasks and files spell it.

        >>> Round(12, "prepare", 12, False).name
        'r012'
        """
        return f"r{self.number:03d}"

    @property
    def trains_images(self) -> bool:
        """Whether the encoder changes in it."""
        return self.stage not in ("prompts", "fusion")


def plan_rounds(*lengths: tuple[Stage, int]) -> tuple[Round, ...]:
    """All rounds of a run in order, from its stages and their numbers of rounds.

    >>> [(r.number, r.stage, r.epoch, r.last_of_stage) for r in plan_rounds(("prepare", 2), ("clip", 1))]
    [(1, 'prepare', 1, False), (2, 'prepare', 2, True), (3, 'clip', 1, True)]
    """
    stages = [(stage, epoch, epoch == length) for stage, length in lengths for epoch in range(1, length + 1)]
    return tuple(Round(number, *position) for number, position in enumerate(stages, start=1))
