"""Average results over the splits of RegDB, one model per split."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from pipeline.config.datasets import options_of
from pipeline.data.images import Kind
from pipeline.errors import DataError
from pipeline.evaluation.report import CLOSED, EvaluationReport, FeatureRecord, SearchReport, Selection, summary


@dataclass(frozen=True, slots=True, config=CLOSED)
class AverageReport:
    """The results of several models, one per split of RegDB, and their average.

    Each search has one trial per model; `deviation` is the spread over splits. `partial`: image counts of some split
    differ from the published ones.
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
    searches = [{_without_split(search.name): search for search in of_split[split].searches} for split in splits]
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
    )


def _average(name: str, searches: Sequence[SearchReport]) -> SearchReport:
    trials = tuple(trial for search in searches for trial in search.trials)
    mean, deviation = summary(trials)
    chance = sum(search.chance_r1 for search in searches) / len(searches)
    return replace(searches[0], name=name, trials=trials, mean=mean, deviation=deviation, chance_r1=chance)


def _without_split(name: str) -> str:
    """`regdb/split-3/infrared_to_visible` becomes `regdb/infrared_to_visible`, the published name."""
    data_set, _, search = name.split("/", 2)
    return f"{data_set}/{search}"


def _named(name: str, splits: tuple[int, ...]) -> str:
    """The published name where all published splits are averaged, else one that names the splits."""
    data_set, _, search = name.partition("/")
    if splits == options_of(data_set).splits:
        return name
    return f"{data_set}/splits-{','.join(map(str, splits))}/{search}"
