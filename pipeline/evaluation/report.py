"""The content of `evaluation.json`: every number with the data, the model and the options that it belongs to.

`evaluation.schema.json` describes it to other programs. Numbers are fractions of 1; tables show percent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.config.datasets import options_of
from pipeline.data.images import Kind
from pipeline.errors import DataError
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


Selection = Literal["last", "val", "test_best"]


@dataclass(frozen=True, slots=True, config=CLOSED)
class DataRecord:
    """The compared images.

    Attributes:
        split: People that the model was trained on.
        trial: Which of RegDB's ten splits, `data.split`; None elsewhere. The name is that of format 1.
        partial: Counts differ from the published ones.
        overlap: Some people are in training and in test.
        file_list: Digest of the relative paths.
    """

    name: str
    kind: Kind
    split: str
    trial: int | None
    partial: bool
    overlap: bool
    file_list: str
    visible: Count
    infrared: Count


@dataclass(frozen=True, slots=True, config=CLOSED)
class ModelRecord:
    """The model: run, round and its selection, origin of the weights, digest, seed."""

    run: str
    round: Count
    selection: Selection
    weights: str
    encoder: str
    seed: int


@dataclass(frozen=True, slots=True, config=CLOSED)
class FeatureRecord:
    """How an image becomes a vector."""

    name: str
    dim: Annotated[int, Field(ge=1)]
    flip: Literal["none", "mean", "concat"]
    image_height: Annotated[int, Field(ge=1)]
    image_width: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, config=CLOSED)
class LastRound:
    """Results of the last round, where another one was selected."""

    round: Count
    searches: tuple[SearchReport, ...]


@dataclass(frozen=True, slots=True, config=CLOSED)
class EvaluationReport:
    """Metrics and their origin.

    Attributes:
        searches: Re-ranked ones are entries of their own. Empty without test images.
        validation: Results on held-out images that were neither trained nor tested on.
        last: The last round, where `model.round` is another one.
        warnings: To be read before the numbers are quoted.
    """

    data: DataRecord
    model: ModelRecord
    features: FeatureRecord
    searches: tuple[SearchReport, ...]
    validation: tuple[SearchReport, ...] = ()
    last: LastRound | None = None
    warnings: tuple[str, ...] = ()
    format: Literal[1] = 1

    @property
    def headline(self) -> MeanRecord:
        """Means of the first search without re-ranking."""
        return next(search.mean for search in (*self.searches, *self.validation) if search.rerank is None)

    def metrics(self) -> dict[str, float]:
        """The means of every search under their names in a tracker: `test/sysu/all/1-shot/agw/r1`."""
        return {
            f"{part}/{search.name}/{name}": value
            for part, searches in (("test", self.searches), ("val", self.validation))
            for search in searches
            for name, value in asdict(search.mean).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        record: dict[str, Any] = TypeAdapter(EvaluationReport).dump_python(self, mode="json")
        return {"format": record.pop("format"), **record}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "EvaluationReport":
        """The inverse of `to_dict`.

        Raises:
            DataError: A key is missing, unknown, of another type or out of range.
        """
        try:
            return TypeAdapter(EvaluationReport).validate_python(dict(record))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(
                f"this is no evaluation report of format 1: {where}: {first['msg']}",
                hint="give the evaluation.json of a run folder, or evaluate the run again",
            ) from error


@dataclass(frozen=True, slots=True, config=CLOSED)
class AverageReport:
    """The results of several models, one per split of RegDB, and their average.

    Each search has one trial per model; `deviation` is the spread over splits. `partial`: image counts of some split
    differ from the published ones. `warnings` are those of all splits.
    """

    runs: tuple[str, ...]
    splits: tuple[int, ...]
    kind: Kind
    partial: bool
    selection: Selection
    weights: str
    seed: int
    features: FeatureRecord
    searches: tuple[SearchReport, ...]
    warnings: tuple[str, ...] = ()
    format: Literal[2] = 2

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        record: dict[str, Any] = TypeAdapter(AverageReport).dump_python(self, mode="json")
        return {"format": record.pop("format"), **record}


def average_reports(reports: Sequence[EvaluationReport]) -> AverageReport:
    """Average over models that were trained and tested on different splits.

    All ten splits together are named `regdb/...` as in published tables; fewer are named one by one, since their mean
    compares with no published number.

    Raises:
        DataError: A split occurs twice, or the reports are of different searches or settings.
    """
    of_split = {report.data.trial: report for report in reports if report.data.trial is not None}
    if not reports or len(of_split) < len(reports):
        found = ", ".join(str(report.data.trial) for report in reports)
        raise DataError(
            f"results of the splits {found or 'none'} cannot be averaged",
            hint="give one result of each split, each from a model that was trained on that split",
        )
    splits = tuple(sorted(of_split))
    searches = [{without_split(search.name): search for search in of_split[split].searches} for split in splits]
    for split, names in zip(splits, searches, strict=True):
        if list(names) != list(searches[0]):
            raise DataError(
                f"the results measured different searches: {', '.join(searches[0]) or 'none'} in split {splits[0]}, "
                f"{', '.join(names) or 'none'} in split {split}",
                hint="evaluate all runs with one configuration",
            )
    first = of_split[splits[0]]
    made = [(one.data.kind, one.model.selection, one.model.weights, one.model.seed, one.features) for one in reports]
    if any(one != made[0] for one in made):
        raise DataError(
            "the results are of models that were made in different ways", hint="train all splits with one configuration"
        )
    return AverageReport(
        runs=tuple(of_split[split].model.run for split in splits),
        splits=splits,
        kind=first.data.kind,
        partial=any(report.data.partial for report in reports),
        selection=first.model.selection,
        weights=first.model.weights,
        seed=first.model.seed,
        features=first.features,
        searches=tuple(_average(_named(name, splits), [one[name] for one in searches]) for name in searches[0]),
        warnings=tuple(dict.fromkeys(warning for split in splits for warning in of_split[split].warnings)),
    )


def _average(name: str, searches: Sequence[SearchReport]) -> SearchReport:
    trials = tuple(trial for search in searches for trial in search.trials)
    mean, deviation = summary(trials)
    chance = sum(search.chance_r1 for search in searches) / len(searches)
    return replace(searches[0], name=name, trials=trials, mean=mean, deviation=deviation, chance_r1=chance)


def without_split(name: str) -> str:
    """`regdb/split-3/infrared_to_visible` becomes `regdb/infrared_to_visible`, the published name."""
    data_set, _, search = name.split("/", 2)
    return f"{data_set}/{search}"


def _named(name: str, splits: tuple[int, ...]) -> str:
    """The published name where all published splits are averaged, else one that names the splits."""
    data_set, _, search = name.partition("/")
    if splits == options_of(data_set).splits:
        return name
    return f"{data_set}/splits-{','.join(map(str, splits))}/{search}"
