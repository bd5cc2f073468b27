"""What an evaluation writes down: every number with the data, the model and the options that it belongs to.

`EvaluationReport.to_dict` is the content of `evaluation.json`; `evaluation.schema.json` beside this file describes it
to other programs. Numbers are fractions of 1; tables turn them into percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.errors import DataError
from pipeline.evaluation.protocol import Direction, DrawName, Search
from pipeline.evaluation.ranking import CURVE_LENGTH, RankBy, TrialMetrics

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
Curve = Annotated[tuple[Fraction, ...], Field(min_length=CURVE_LENGTH, max_length=CURVE_LENGTH)]

_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, config=_CLOSED)
class DataRecord:
    """Which images were compared: data set, licence kind, completeness, digest of the file list, test images."""

    name: str
    kind: Literal["licensed", "custom", "drawn"]
    partial: bool
    file_list: str
    visible: Count
    infrared: Count


@dataclass(frozen=True, slots=True, config=_CLOSED)
class ModelRecord:
    """Which model encoded them: run, round and how it was chosen, origin of the weights, digest, seed."""

    run: str
    round: Count
    selection: Literal["last", "val", "test_best"]
    weights: str
    encoder: str
    seed: int


@dataclass(frozen=True, slots=True, config=_CLOSED)
class FeatureRecord:
    """How an image became a vector."""

    name: str
    dim: Annotated[int, Field(ge=1)]
    flip: Literal["none", "mean", "concat"]
    image_height: Annotated[int, Field(ge=1)]
    image_width: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, config=_CLOSED)
class TrialRecord:
    """The numbers of one trial."""

    trial: Count
    cmc: Curve
    map: Fraction
    minp: Fraction


@dataclass(frozen=True, slots=True, config=_CLOSED)
class MeanRecord:
    """Means over the trials; `r1` is the share of valid queries whose rank is 1."""

    r1: Fraction
    r5: Fraction
    r10: Fraction
    r20: Fraction
    map: Fraction
    minp: Fraction


@dataclass(frozen=True, slots=True, config=_CLOSED)
class DeviationRecord:
    """Standard deviations over the trials of one model (n - 1). The spread over seeds is another quantity."""

    r1: Fraction
    map: Fraction
    minp: Fraction


@dataclass(frozen=True, slots=True, config=_CLOSED)
class SearchReport:
    """The numbers of one search; `deviation` is None for one trial."""

    name: str
    direction: Direction
    draw: DrawName | None
    shots: Annotated[int, Field(ge=1)] | None
    rank_by: RankBy
    rerank: Literal["k_reciprocal"] | None
    queries: Count
    valid_queries: Count
    gallery: Count
    trials: Annotated[tuple[TrialRecord, ...], Field(min_length=1)]
    mean: MeanRecord
    deviation: DeviationRecord | None


@dataclass(frozen=True, slots=True, config=_CLOSED)
class EvaluationReport:
    """What `evaluation.json` holds: numbers, and where they come from."""

    data: DataRecord
    model: ModelRecord
    features: FeatureRecord
    searches: Annotated[tuple[SearchReport, ...], Field(min_length=1)]
    format: Literal[1] = 1

    @property
    def headline(self) -> MeanRecord:
        """The means of the first search without re-ranking; re-ranked numbers are never the headline."""
        return next(search.mean for search in self.searches if search.rerank is None)

    def metrics(self) -> dict[str, float]:
        """The means of every search under the names that a tracker shows: `test/sysu/all/1-shot/agw/r1`."""
        return {
            f"test/{search.name}/{name}": value
            for search in self.searches
            for name, value in asdict(search.mean).items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as what JSON can hold: dicts, lists, texts, numbers, booleans and None."""
        record: dict[str, Any] = TypeAdapter(EvaluationReport).dump_python(self, mode="json")
        return {"format": record.pop("format"), **record}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "EvaluationReport":
        """The report that `to_dict` turned into `record`.

        Raises:
            DataError: A key is missing, unknown, of another type or out of range; the first one is named.
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


def report_search(search: Search, metrics: Sequence[TrialMetrics], gallery: int) -> SearchReport:
    """Gather the trials of one search, with their means and standard deviations.

    Args:
        search: What the trials share.
        metrics: The numbers of trial 0, 1, ...; all with the same number of queries.
        gallery: How many gallery images a trial has.
    """
    first = metrics[0]
    assert all((one.queries, one.valid_queries) == (first.queries, first.valid_queries) for one in metrics)
    curves = np.stack([one.cmc for one in metrics])
    average_precision = np.array([one.map for one in metrics])
    inverse_negative_penalty = np.array([one.minp for one in metrics])
    r1, r5, r10, r20 = (float(curves[:, rank - 1].mean()) for rank in (1, 5, 10, 20))
    deviation = None
    if len(metrics) > 1:
        spreads = (values.std(ddof=1) for values in (curves[:, 0], average_precision, inverse_negative_penalty))
        deviation = DeviationRecord(*map(float, spreads))
    return SearchReport(
        name=search.name,
        direction=search.direction,
        draw=search.draw,
        shots=search.shots,
        rank_by=search.rank_by,
        rerank=None,
        queries=first.queries,
        valid_queries=first.valid_queries,
        gallery=gallery,
        trials=tuple(
            TrialRecord(trial, tuple(one.cmc.tolist()), one.map, one.minp) for trial, one in enumerate(metrics)
        ),
        mean=MeanRecord(r1, r5, r10, r20, float(average_precision.mean()), float(inverse_negative_penalty.mean())),
        deviation=deviation,
    )
