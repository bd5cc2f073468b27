"""What an evaluation writes down: every number with the data, the model and the options that it belongs to.

`EvaluationReport.to_dict` is the content of `evaluation.json`; `evaluation.schema.json` beside this file describes it
to other programs. Numbers are fractions of 1; tables turn them into percent.
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
    """Which images were compared.

    Attributes:
        name: The data set, or the manifest.
        kind: What stands behind the images.
        split: The people that the model was trained on.
        trial: Which of RegDB's ten splits, `data.split`; None elsewhere. The name is that of format 1.
        partial: Counts differ from the published ones.
        overlap: Some people are in training and in test.
        file_list: Digest of the relative paths.
        visible: Test images.
        infrared: Test images.
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
    """Which model encoded them: run, round and how it was chosen, origin of the weights, digest, seed."""

    run: str
    round: Count
    selection: Selection
    weights: str
    encoder: str
    seed: int


@dataclass(frozen=True, slots=True, config=CLOSED)
class FeatureRecord:
    """How an image became a vector."""

    name: str
    dim: Annotated[int, Field(ge=1)]
    flip: Literal["none", "mean", "concat"]
    image_height: Annotated[int, Field(ge=1)]
    image_width: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, config=CLOSED)
class LastRound:
    """What the last round retrieves, where another round was chosen: the two stand side by side."""

    round: Count
    searches: tuple[SearchReport, ...]


@dataclass(frozen=True, slots=True, config=CLOSED)
class EvaluationReport:
    """What `evaluation.json` holds: numbers, and where they come from.

    Attributes:
        data: Which images.
        model: Which model.
        features: How images became vectors.
        searches: The numbers; re-ranked ones are entries of their own. Empty where the data set names no test images.
        validation: Numbers on held-out images that were neither trained nor tested on.
        last: The last round, where `model.round` is another one.
        warnings: What a reader has to know before the numbers are quoted.
        format: Of this record.
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
        """The means of the first search without re-ranking; re-ranked numbers are never the headline."""
        return next(search.mean for search in (*self.searches, *self.validation) if search.rerank is None)

    def metrics(self) -> dict[str, float]:
        """The means of every search under the names that a tracker shows: `test/sysu/all/1-shot/agw/r1`."""
        return {
            f"{part}/{search.name}/{name}": value
            for part, searches in (("test", self.searches), ("val", self.validation))
            for search in searches
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
