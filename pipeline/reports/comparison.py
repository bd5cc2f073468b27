"""Comparison of runs: settings that differ, and the metrics of each round."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.flat import flat
from pipeline.errors import CheckpointError, ConfigError
from pipeline.storage.layout import ROW_LABELS
from pipeline.storage.run_reader import RecordedRun

ABSENT = None
"""Stands where a run has no such setting or number."""


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of a round, under the name that each run has for it.

    Attributes:
        names: Per run; None where it has no such metric.
        form: Format specification.
        percent: Whether a share is shown in percent.
    """

    title: str
    names: tuple[str | None, ...]
    form: str
    percent: bool = False

    def text(self, value: float | None) -> str:
        """The formatted number; empty for None.

        >>> Column("Rank-1", ("test/all/r1",), ".2f", percent=True).text(0.5)
        '50.00'
        """
        return "" if value is None else format(100 * value if self.percent else value, self.form)


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that differs between runs; `ABSENT` where a run does not have it."""

    setting: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs, and the metrics by which they are compared."""

    runs: tuple[RecordedRun, ...]
    columns: tuple[Column, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        """A short name per run: A, B, ... Z, AA, AB, ..."""
        return tuple(_letter(place) for place in range(len(self.runs)))

    @property
    def rounds(self) -> tuple[int, ...]:
        """The numbers of all rounds that any run has finished, ascending."""
        return tuple(sorted({number for run in self.runs for number in run.rounds}))

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Every setting that differs, sorted by name; the data folder and the device count as settings."""
        settings = [dict(flat(run.recorded)) for run in self.runs]
        names = sorted({name for one in settings for name in one})
        values = {name: tuple(one.get(name, ABSENT) for one in settings) for name in names}
        return tuple(Difference(name, of) for name, of in values.items() if any(value != of[0] for value in of))

    def value(self, column: Column, place: int, number: int) -> float | None:
        """A metric of the run at `place` after a round; None where there is none."""
        name = column.names[place]
        value = None if name is None else self.runs[place].rounds.get(number, {}).get(name)
        return value if isinstance(value, (int, float)) else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `rounds` has one value per run for each metric."""
        places = range(len(self.runs))
        return {
            "runs": [run.to_dict() for run in self.runs],
            "differences": [{"setting": one.setting, "values": list(one.values)} for one in self.differences],
            "rounds": [
                {"round": number}
                | {column.title: [self.value(column, place, number) for place in places] for column in self.columns}
                for number in self.rounds
            ],
        }


def compare_runs(runs: Sequence[RecordedRun], metrics: Sequence[str] = ()) -> Comparison:
    """Compare runs by their headline searches, losses and seconds.

    Runs of different data sets have different headline searches, named in `headline`.

    Args:
        runs: Each with a finished round.
        metrics: Further metrics, by their names in `metrics.jsonl` or `timings.jsonl`.

    Raises:
        ConfigError: No run, or an unknown metric.
        CheckpointError: A run has no finished round.
    """
    if not runs:
        raise ConfigError("there is nothing to compare", hint="name at least one run; `vireid runs` lists them")
    for run in runs:
        if not run.rounds:
            raise CheckpointError(
                f"{run.path} has no finished round yet", hint="wait for its first round, or leave this run out"
            )
    headlines = [run.headline for run in runs]
    columns = [
        Column("Rank-1", tuple(name and f"{name}/r1" for name in headlines), ".2f", percent=True),
        Column("mAP", tuple(name and f"{name}/map" for name in headlines), ".2f", percent=True),
        Column("loss", ("train/loss/total",) * len(runs), ".3f"),
        Column("seconds", ("seconds/total",) * len(runs), ".1f"),
    ]
    known = {name for run in runs for row in run.rounds.values() for name in row if name not in ROW_LABELS}
    for name in dict.fromkeys(metrics):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)[:3]
            raise ConfigError(f"no run has a number called {name!r}", hint=f"there is, for instance: {', '.join(near)}")
        columns.append(Column(name, (name,) * len(runs), ".4g"))
    return Comparison(tuple(runs), tuple(columns))


def _letter(place: int) -> str:
    """A for 0, Z for 25, AA for 26.

    >>> [_letter(place) for place in (0, 25, 26, 52)]
    ['A', 'Z', 'AA', 'BA']
    """
    first, last = divmod(place, 26)
    return (_letter(first - 1) if first else "") + chr(ord("A") + last)
