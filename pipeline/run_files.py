"""What lies in a run's folder, by name, and the record that makes it a run's; who only reads a run needs no torch."""

from pathlib import Path
from typing import Any

from pipeline import durable_files as files
from pipeline.errors import CheckpointError

CONFIG = "config.json"
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
LABELS = "labels"
FIGURES = "figures"
EVALUATION = "evaluation.json"
ENVIRONMENT = "environment.json"
TRACKING = "tracking.json"
LOCK = "lock"

WRITTEN = (CONFIG, CHECKPOINT, METRICS, TIMINGS, EVALUATION, ENVIRONMENT)
"""The files whose time says when a run was last written; opening it to look at it changes none of them."""


def read_record(path: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder, as `digest` and `config`; None where no run was begun.

    Raises:
        CheckpointError: The file is damaged, or another program's.
    """
    record = files.read_json(path / CONFIG)
    if record is not None and not {"digest", "config"} <= record.keys():
        raise CheckpointError(
            f"{path / CONFIG} was not written by this program", hint="choose a new or an empty folder"
        )
    return record


def figure_path(path: Path, name: str, number: int) -> Path:
    """Where a figure of a round lies, or will: `figures/eps-curve-012.png`."""
    return path / FIGURES / f"{name}-{number:03d}.png"


def last_figures(path: Path) -> dict[str, Path]:
    """The figure of the latest round of each kind that there is, by its name, sorted."""
    last: dict[str, tuple[int, Path]] = {}
    for file in (path / FIGURES).glob("*-*.png"):
        name, _, number = file.stem.rpartition("-")
        if number.isdecimal() and int(number) > last.get(name, (0, file))[0]:
            last[name] = int(number), file
    return {name: file for name, (_, file) in sorted(last.items())}
