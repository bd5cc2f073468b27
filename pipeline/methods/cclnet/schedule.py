"""What the configuration makes of a round: its learning rate, and whether the optimiser starts anew."""

from pipeline.config.cclnet import OptimisationConfig, SwapConfig
from pipeline.config.rounds import Round
from pipeline.training.optimiser import AtSwap, image_learning_rate, optimiser_restarts


def learning_rate_of(round_: Round, optimisation: OptimisationConfig, swap: SwapConfig) -> float:
    """The learning rate of a round before the factors of its parameter groups."""
    return image_learning_rate(
        round_.epoch,
        learning_rate=optimisation.learning_rate,
        warmup_rounds=optimisation.warmup_rounds,
        warmup_factor=optimisation.warmup_factor,
        milestones=optimisation.milestones,
        gamma=optimisation.gamma,
        swap_start=swap.start,
        at_swap=_at_swap(round_, optimisation, swap),
        fixed_swap_learning_rate=None if swap.mode == "off" else optimisation.fixed_swap_learning_rate,
    )


def starts_anew(round_: Round, optimisation: OptimisationConfig, swap: SwapConfig) -> bool:
    """Whether a round begins with a new optimiser because swapping starts in it."""
    return optimiser_restarts(round_.epoch, swap_start=swap.start, at_swap=_at_swap(round_, optimisation, swap))


def _at_swap(round_: Round, optimisation: OptimisationConfig, swap: SwapConfig) -> AtSwap:
    """What the learning rate does when swapping starts; a restart is for stage `clip` alone, as released for RegDB."""
    if swap.mode == "off" or (optimisation.at_swap == "restart" and round_.stage == "prepare"):
        return "continue"
    return optimisation.at_swap
