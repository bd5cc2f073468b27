"""Which rounds a run has, by its configuration alone: known without torch, and before anything is opened."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config.csdn import CsdnConfig
from pipeline.config.eees import EeesConfig
from pipeline.config.experiment import AnyConfig
from pipeline.config.shared import ExperimentConfig

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


def planned_rounds(config: AnyConfig) -> tuple[Round, ...]:
    """All rounds of a run in order, the finished ones among them."""
    match config:
        case CsdnConfig():
            prompts, fusion = int(config.with_texts), int(config.with_fusion)
            return plan_rounds(("prompts", prompts), ("fusion", fusion), ("image", config.stages.image_rounds))
        case EeesConfig():
            return plan_rounds(("image", config.stages.image_rounds))
        case ExperimentConfig():
            return plan_rounds(("prepare", config.stages.prepare_rounds), ("clip", config.stages.clip_rounds))
