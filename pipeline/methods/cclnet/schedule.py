"""Settings of a round: learning rate, restart of the optimiser, prompt learning."""

import logging

import numpy as np
from jaxtyping import Int64
from sklearn.metrics import normalized_mutual_info_score

from clustering.dbscan import OUTLIER
from models.modality import PerModality
from pipeline.config.cclnet import CclnetConfig, OptimisationConfig, SwapConfig
from pipeline.config.experiment import Round
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.state import CclnetRun, DescribedClusters, TextPrototypes
from pipeline.training.optimiser import AtSwap, image_learning_rate, optimiser_restarts

logger = logging.getLogger(__name__)


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
    """Whether a round begins with an optimiser without history because swapping starts."""
    return optimiser_restarts(round_.epoch, swap_start=swap.start, at_swap=_at_swap(round_, optimisation, swap))


def _at_swap(round_: Round, optimisation: OptimisationConfig, swap: SwapConfig) -> AtSwap:
    """Learning rate at the start of swapping; a restart is for stage `clip` only, as released for RegDB."""
    if swap.mode == "off" or (optimisation.at_swap == "restart" and round_.stage == "prepare"):
        return "continue"
    return optimisation.at_swap


def prompts_due(
    config: CclnetConfig, round_: Round, clusters: Clusters, text: PerModality[TextPrototypes] | None
) -> bool:
    """Whether prompts are learned in this round: at the start of stage `clip`, and where a refresh is due."""
    prompts = config.prompts
    if round_.stage != "clip" or prompts.text_weight == 0:
        return False
    if round_.first_of_stage or text is None:
        return True
    if prompts.refresh_every is not None and (round_.epoch - 1) % prompts.refresh_every == 0:
        return True
    if prompts.refresh_agreement is None:
        return False
    agreement = agreement_with_text(text, clusters)
    if agreement < prompts.refresh_agreement:
        logger.info(
            "prompts are learned again in round %d: their clusters agree %.2f with the current ones, less than %.2f",
            round_.number, agreement, prompts.refresh_agreement,
        )  # fmt: skip
        return True
    return False


def agreement_with_text(text: PerModality[TextPrototypes], clusters: Clusters) -> float:
    """Normalised mutual information of the prompts' clusters and the current ones, in [0, 1]; mean of the modalities.

    Images that are outliers in either are excluded; without any other image, the agreement is 0.
    """

    def agreement(one: TextPrototypes, now: Int64[np.ndarray, " n"]) -> float:
        both = (one.labels != OUTLIER) & (now != OUTLIER)
        return float(normalized_mutual_info_score(one.labels[both], now[both])) if both.any() else 0.0

    return sum(text.map_with(agreement, clusters.labels)) / 2


def clusters_to_describe(run: CclnetRun, clusters: Clusters) -> DescribedClusters:
    """The clusters for prompt learning: those exported by stage `prepare`, later the round's own."""
    if not run.round.first_of_stage:
        return clusters.described(run.config)
    exported = run.state.method.exported
    assert exported is not None, "stage `prepare` ends with exported clusters"
    return exported
