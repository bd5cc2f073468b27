"""How many pairs a radius graph may hold, and what happens beyond."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

Graph = TypeVar("Graph")

logger = logging.getLogger(__name__)


class TooManyPairsError(ValueError):
    """More pairs of images lie within eps than can be held; the message names a radius that would fit."""


MOST_PAIRS = 1 << 31  # 34 GB of pairs, 60 GB while they are gathered
CURVE_EPS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)


def within_limit(num_pairs: int) -> bool:
    """Whether this many pairs may be held."""
    return num_pairs <= MOST_PAIRS


def graph_within_limit(
    join: Callable[[float], Graph | None],
    count: Callable[[Sequence[float]], Sequence[int]],
    eps: float,
    wider: Sequence[float],
) -> Graph:
    """Join at the widest radius at which the pairs can be held, which must be `eps` at least.

    Nothing is counted where the first join succeeds.

    Args:
        join: Gives the graph of a radius, or nothing where it has more than `MOST_PAIRS` pairs.
        count: Gives the number of pairs within each of several radii.
        eps: The radius that is needed.
        wider: Radii that are welcome besides; smaller ones than eps play no part.

    Raises:
        TooManyPairsError: Too many pairs lie within eps; the message names a radius that would fit.
    """
    graph = join(max((eps, *wider)))
    if graph is not None:
        return graph
    radii = sorted({eps, *wider, *CURVE_EPS})
    pairs = dict(zip(radii, count(radii), strict=True))
    fitting = [radius for radius in radii if within_limit(pairs[radius])]
    if eps not in fitting:
        advice = (
            f"eps {fitting[-1]:g} would fit with {pairs[fitting[-1]]:,}"
            if fitting
            else f"even eps {radii[0]:g} has {pairs[radii[0]]:,}, so the features lie all in one place"
        )
        raise TooManyPairsError(f"eps {eps:g} has {pairs[eps]:,} pairs of images, more than {MOST_PAIRS:,}: {advice}")
    logger.warning("pairs beyond distance %g are too many to hold: nothing is known of larger eps", fitting[-1])
    graph = join(fitting[-1])
    assert graph is not None  # it was counted
    return graph
