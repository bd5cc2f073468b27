"""Read runs without opening them: no lock, no writes, no torch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.config.datasets import options_of
from pipeline.config.experiment import AnyConfig, marks_of
from pipeline.config.presets import validate_config
from pipeline.errors import CheckpointError, ConfigError, VireidError
from pipeline.runtime.folder_lock import lock_holder
from pipeline.storage import layout as run_files
from pipeline.storage.origin import is_synthetic

RunState = Literal["running", "finished", "interrupted"]


@dataclass(frozen=True, slots=True)
class RoundScore:
    """Rank-1 and mAP of the headline search after one round; fractions of 1."""

    round: int
    r1: float
    map: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"round": self.round, "r1": self.r1, "map": self.map}


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A snapshot of one run, which may be running.

    Attributes:
        recorded: The settings as written in its folder, as plain JSON types.
        planned: Rounds of a complete run.
        rounds: Metrics and timings of each finished round, by its number from 1.
        holder: The local process that has the folder open.
        written: Modification time of its newest file.
    """

    path: Path
    config: AnyConfig
    recorded: Mapping[str, Any]
    digest: str
    planned: int
    rounds: Mapping[int, Mapping[str, Any]]
    holder: int | None
    written: datetime

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    @property
    def method(self) -> str:
        """The method, with the marks of its settings: `cclnet, cameras used`."""
        return ", ".join((self.config.method, *marks_of(self.recorded)))

    @property
    def data(self) -> str:
        """The data set, with the split unless it is the default, and `synthetic` where it is."""
        data = self.config.data
        usual = data.split in (None, options_of(data.name).default_split)
        return data.name + ("" if usual else f", split {data.split}") + (", synthetic" if self.synthetic else "")

    @property
    def synthetic(self) -> bool:
        """Whether its images show synthetic people."""
        return is_synthetic(self.path)

    @property
    def state(self) -> RunState:
        """`running` while a process has it open; otherwise whether its last round is finished."""
        if self.holder is not None:
            return "running"
        return "finished" if len(self.rounds) >= self.planned else "interrupted"

    @property
    def headline(self) -> str | None:
        """The first search of the run's rounds, as `test/NAME`, or `val/NAME` without test images."""
        return headline_of(self.rounds.values())

    @property
    def scores(self) -> tuple[RoundScore, ...]:
        """The headline search after each evaluated round."""
        rows = [(number, row, f"{self.headline}/r1", f"{self.headline}/map") for number, row in self.rounds.items()]
        return tuple(
            RoundScore(number, row[r1], row[mean])
            for number, row, r1, mean in rows
            if row.get(r1) is not None and row.get(mean) is not None
        )

    @property
    def best(self) -> RoundScore | None:
        """The first round with the highest Rank-1. Selected on the test set: not a result."""
        return max(self.scores, key=lambda score: score.r1, default=None)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        last, best = self.scores[-1] if self.scores else None, self.best
        return {
            "run": str(self.path),
            "method": self.config.method,
            "marks": list(marks_of(self.recorded)),
            "data": self.config.data.name,
            "synthetic": self.synthetic,
            "split": self.config.data.split,
            "seed": self.config.seed,
            "digest": self.digest,
            "rounds": len(self.rounds),
            "planned": self.planned,
            "state": self.state,
            "search": self.headline,
            "last": None if last is None else last.to_dict(),
            "best_by_test": None if best is None else best.to_dict(),
            "written": self.written.isoformat(timespec="seconds"),
        }


def headline_of(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The first search of some rounds, as `test/NAME`, or `val/NAME` without test images; None if none was measured.

    >>> headline_of([{"round": 1}, {"round": 2, "val/sysu/all/r1": 0.5, "test/sysu/all/r1": 0.5}])
    'test/sysu/all'
    """
    names = [name for row in rows for name in row if name.endswith("/r1")]
    first = [name for part in ("test/", "val/") for name in names if name.startswith(part)]
    return first[0].removesuffix("/r1") if first else None


def read_run(path: Path) -> RecordedRun:
    """Read a run that may be running.

    Raises:
        CheckpointError: No run, or one that is damaged, unreadable, or of another version.
    """
    no_run = CheckpointError(f"{path} holds no run", hint="name a folder with config.json; see `vireid runs`")
    try:
        record = run_files.read_record(path)
        if record is None:
            raise no_run
        config = _config_of(path, record)
        written = max((path / name).stat().st_mtime for name in run_files.WRITTEN if (path / name).exists())
        return RecordedRun(
            path=path,
            config=config,
            recorded=record["config"],
            digest=str(record["digest"]),
            planned=sum(length for _, length, _ in config.stage_lengths),
            rounds=_read_rounds(path),
            holder=lock_holder(path, run_files.LOCK),
            written=datetime.fromtimestamp(written, UTC),
        )
    except NotADirectoryError as error:
        raise no_run from error
    except OSError as error:
        raise _unreadable(path, error) from error


def read_runs(folder: Path) -> Iterator[RecordedRun | VireidError]:
    """Every run in a folder, by name; for a run that cannot be read, its error.

    Skips folders without files of a run, such as those of servers, images and models. `ConfigError` if no folder.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be listed: {error.strerror}",
            hint="name the folder of your runs: `vireid runs --runs FOLDER`",
        ) from error
    for path in entries:
        try:
            if any((path / name).exists() for name in run_files.WRITTEN):
                yield read_run(path)
        except OSError as error:
            yield _unreadable(path, error)
        except VireidError as error:
            yield error


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: {error.strerror}", hint="check the permissions of its files")


def _config_of(path: Path, record: Mapping[str, Any]) -> AnyConfig:
    try:
        return validate_config(record["config"])
    except ConfigError as error:
        hint = "it was written by another version: read it with that one"
        raise CheckpointError(f"{path / run_files.CONFIG}: {error.message}", hint=hint) from error


def _read_rounds(path: Path) -> dict[int, dict[str, Any]]:
    """Metrics and timings of each round in one row; timings of the last round may not be written yet."""
    metrics = run_files.read_rows(path / run_files.METRICS)
    timings = run_files.read_rows(path / run_files.TIMINGS)
    timings += [{} for _ in metrics[len(timings) :]]
    return {row["round"]: row | timing for row, timing in zip(metrics, timings, strict=False)}
