"""Groups of runs that differ in their seed or split only: mean and deviation, and a label for each group."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from pipeline.config.datasets import options_of
from pipeline.config.experiment import changed_settings, digest_of, record_of, with_seed, with_split
from pipeline.config.presets import changes_from_preset
from pipeline.storage.run_reader import RecordedRun, RoundScore


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (n - 1) over runs, as fractions of 1; no deviation of one run."""

    mean: float
    deviation: float | None

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return Spread(fmean(values), stdev(values) if len(values) > 1 else None)

    def text(self, sign: str = "±") -> str:
        """In percent.

        >>> Spread.of([0.5, 0.52]).text(), Spread.of([0.5]).text()
        ('51.00 ± 1.41', '50.00')
        """
        mean = f"{100 * self.mean:.2f}"
        return mean if self.deviation is None else f"{mean} {sign} {100 * self.deviation:.2f}"

    def to_dict(self) -> dict[str, float | None]:
        """As plain JSON types."""
        return {"mean": self.mean, "deviation": self.deviation}


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in seed or split only, by both; `places` are their positions among all runs."""

    label: str
    runs: tuple[RecordedRun, ...]
    places: tuple[int, ...]

    @property
    def varied(self) -> str:
        """The seeds, and the splits where each is trained separately: `seeds 1-3`.

        An empty list of splits means a data set of one split.
        """
        seeds = _numbers(sorted({run.config.seed for run in self.runs}))
        splits = sorted({split for run in self.runs if (split := trained_split(run)) is not None})
        return f"seeds {seeds}, splits {_numbers(splits)}" if splits else f"seeds {seeds}"

    @property
    def last_common_round(self) -> int | None:
        """The last round after which every run was evaluated."""
        return max(set.intersection(*({score.round for score in run.scores} for run in self.runs)), default=None)

    def scores(self) -> tuple[int, Spread, Spread] | None:
        """That round, and Rank-1 and mAP after it; None if some run was never evaluated."""
        number = self.last_common_round
        if number is None:
            return None
        scores: list[RoundScore] = [next(one for one in run.scores if one.round == number) for run in self.runs]
        return number, Spread.of([one.r1 for one in scores]), Spread.of([one.map for one in scores])


def trained_split(run: RecordedRun) -> int | None:
    """The split of a data set with a model for each split, else None."""
    split = run.config.data.split
    return split if options_of(run.config.data.name).model_per_split and isinstance(split, int) else None


def group_runs(runs: Sequence[RecordedRun]) -> tuple[Group, ...]:
    """The groups, in the order of their first runs; inside a group by seed and split."""
    places: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        config = run.config if trained_split(run) is None else with_split(run.config, None)
        places.setdefault(digest_of(with_seed(config, 0)), []).append(place)
    sorted_places = [
        sorted(of, key=lambda place: (runs[place].config.seed, trained_split(runs[place]) or 0))
        for of in places.values()
    ]
    labels = _labels([runs[of[0]] for of in sorted_places])
    return tuple(
        Group(label, tuple(runs[place] for place in of), tuple(of))
        for label, of in zip(labels, sorted_places, strict=True)
    )


def _labels(firsts: Sequence[RecordedRun]) -> list[str]:
    """Name of the experiment, and its changes of that preset; of no preset, what differs from others of that name."""
    labels = []
    for run in firsts:
        changes = changes_from_preset(run.config)
        if changes is None:
            others = [other.config for other in firsts if other.config.name == run.config.name]
            found = [changed_settings(record_of(other), record_of(run.config)) for other in others]
            changes = dict(sorted({name: value for one in found for name, value in one.items()}.items()))
        labels.append(", ".join([run.config.name, *(f"{name}={setting_text(of)}" for name, of in changes.items())]))
    return labels


def setting_text(value: Any) -> str:
    """The value of a setting as text: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(numbers: Sequence[int]) -> str:
    """Ascending numbers, consecutive ones as a range.

    >>> _numbers([1, 2, 3, 7])
    '1-3, 7'
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in ranges)
