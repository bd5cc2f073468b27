"""The content of `evaluation.json`: every number with the data, the model and the options that it belongs to.

`evaluation.schema.json` describes it to other programs. Numbers are fractions of 1; tables show percent.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.data.images import Kind
from pipeline.errors import DataError
from pipeline.evaluation.search_report import CLOSED, Count, MeanRecord, SearchReport

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
