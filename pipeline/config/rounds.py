"""The rounds of a run: known from its settings alone, without torch, before anything is opened."""

from dataclasses import dataclass

from pipeline.config.experiment import AnyConfig

Stage = str
"""The name of a training stage, such as `prepare`; each method has its own."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: of an unsupervised method cluster, then train; of a supervised one an epoch, or a stage of its own.

    `number` counts through the whole run from 1, `epoch` inside its stage; schedules and swapping follow `epoch`.
    """

    number: int
    stage: Stage
    epoch: int
    last_of_stage: bool
    trains_images: bool = True

    @property
    def first_of_stage(self) -> bool:
        """Whether a stage begins with it."""
        return self.epoch == 1

    @property
    def name(self) -> str:
        """The round as tasks and files spell it.

        >>> Round(12, "prepare", 12, False).name
        'r012'
        """
        return f"r{self.number:03d}"


def planned_rounds(config: AnyConfig) -> tuple[Round, ...]:
    """All rounds of a run in order, the finished ones among them."""
    return number_rounds(*config.stage_lengths)


def number_rounds(*lengths: tuple[Stage, int, bool]) -> tuple[Round, ...]:
    """All rounds of a run in order.

    Args:
        lengths: Each stage's name, its number of rounds, and whether it trains the encoder on images.

    >>> [(r.number, r.stage, r.epoch, r.last_of_stage) for r in number_rounds(("prepare", 2, True), ("clip", 1, True))]
    [(1, 'prepare', 1, False), (2, 'prepare', 2, True), (3, 'clip', 1, True)]
    """
    stages = [
        (stage, epoch, epoch == length, trains) for stage, length, trains in lengths for epoch in range(1, length + 1)
    ]
    return tuple(Round(number, *position) for number, position in enumerate(stages, start=1))
