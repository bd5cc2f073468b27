"""Metrics of one search over its trials."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pipeline.evaluation.protocol import Direction, DrawName, ExclusionRule, RetrievalTrial
from pipeline.evaluation.ranking import CURVE_LENGTH, RankBy, TrialMetrics

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Curve = Annotated[tuple[Fraction, ...], Field(min_length=CURVE_LENGTH, max_length=CURVE_LENGTH)]
Reranking = Literal["k_reciprocal"]

CLOSED = ConfigDict(extra="forbid")
STANDARD_ERRORS = 4
"""A trained model that is no further than this above chance was most likely set up wrong."""


@dataclass(frozen=True, slots=True, config=CLOSED)
class TrialRecord:
    """The numbers of one trial."""

    trial: Count
    cmc: Curve
    map: Fraction
    minp: Fraction


@dataclass(frozen=True, slots=True, config=CLOSED)
class MeanRecord:
    """Means over the trials; `r1` is the share of valid queries whose rank is 1."""

    r1: Fraction
    r5: Fraction
    r10: Fraction
    r20: Fraction
    map: Fraction
    minp: Fraction


@dataclass(frozen=True, slots=True, config=CLOSED)
class DeviationRecord:
    """Standard deviations (n - 1) over the trials of one model; not the spread over seeds."""

    r1: Fraction
    map: Fraction
    minp: Fraction


@dataclass(frozen=True, slots=True, config=CLOSED)
class SearchReport:
    """Metrics of one search, and what they depend on.

    Attributes:
        name: Data set, search, direction, shots and draw, as far as the data set has them.
        draw: How galleries were sampled; None for a fixed gallery.
        shots: Gallery images per person and camera; None for a fixed gallery.
        rank_by: What is counted before the first match.
        exclude: Which gallery images are excluded from a query's ranking.
        valid_queries: Queries with a match that is not excluded: the denominator of every metric.
        gallery: Gallery images of one trial.
        hidden_pairs: Excluded pairs of query and gallery image in one trial.
        chance_r1: Expected Rank-1 of a random order.
        deviation: Over the trials; None for one trial.
    """

    name: str
    direction: Direction
    draw: DrawName | None
    shots: Annotated[int, Field(ge=1)] | None
    rank_by: RankBy
    exclude: ExclusionRule
    rerank: Reranking | None
    queries: Count
    valid_queries: Count
    gallery: Count
    hidden_pairs: Count
    chance_r1: Fraction
    trials: Annotated[tuple[TrialRecord, ...], Field(min_length=1)]
    mean: MeanRecord
    deviation: DeviationRecord | None

    @property
    def near_chance(self) -> bool:
        """Whether Rank-1 is at most four standard errors above that of a random order."""
        error = math.sqrt(self.chance_r1 * (1 - self.chance_r1) / self.valid_queries)
        return self.mean.r1 <= self.chance_r1 + STANDARD_ERRORS * error


def report_search(
    trials: Sequence[RetrievalTrial], metrics: Sequence[TrialMetrics], rerank: Reranking | None = None
) -> SearchReport:
    """Gather the trials of one search, with means and standard deviations; `rerank` becomes part of the name."""
    search, first = trials[0].search, metrics[0]
    assert all((one.queries, one.valid_queries) == (first.queries, first.valid_queries) for one in metrics)
    records = tuple(
        TrialRecord(trial.number, tuple(one.cmc.tolist()), one.map, one.minp)
        for trial, one in zip(trials, metrics, strict=True)
    )
    mean, deviation = summary(records)
    return SearchReport(
        name=search.name if rerank is None else f"{search.name}/{rerank}",
        direction=search.direction,
        draw=search.draw,
        shots=search.shots,
        rank_by=search.rank_by,
        exclude=search.exclude,
        rerank=rerank,
        queries=first.queries,
        valid_queries=first.valid_queries,
        gallery=len(trials[0].gallery),
        hidden_pairs=first.hidden_pairs,
        chance_r1=float(np.mean([one.chance_r1 for one in metrics])),
        trials=records,
        mean=mean,
        deviation=deviation,
    )


def summary(trials: Sequence[TrialRecord]) -> tuple[MeanRecord, DeviationRecord | None]:
    """Means and standard deviations (n - 1) over trials; None for one trial."""
    curves = np.array([one.cmc for one in trials])
    average_precision = np.array([one.map for one in trials])
    inverse_negative_penalty = np.array([one.minp for one in trials])
    r1, r5, r10, r20 = (float(curves[:, rank - 1].mean()) for rank in (1, 5, 10, 20))
    mean = MeanRecord(r1, r5, r10, r20, float(average_precision.mean()), float(inverse_negative_penalty.mean()))
    if len(trials) == 1:
        return mean, None
    spreads = (values.std(ddof=1) for values in (curves[:, 0], average_precision, inverse_negative_penalty))
    return mean, DeviationRecord(*map(float, spreads))


def suspicions(searches: Sequence[SearchReport]) -> tuple[str, ...]:
    """A warning for every search whose Rank-1 is near chance: most likely a mistaken set-up."""
    return tuple(
        f"{search.name}: Rank-1 {search.mean.r1:.2%} is hardly above the {search.chance_r1:.2%} of a random order: "
        "most likely the settings belong to another data set, or query and gallery do not show the same people"
        for search in searches
        if search.rerank is None and search.near_chance
    )
