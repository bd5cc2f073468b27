"""File names inside a run folder, and its config record. Importable without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.runtime import atomic_files as files

CONFIG = "config.json"
CHECKPOINT = "checkpoint.pt"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
PENDING = "pending"
LABELS = "labels"
QUERIES = "queries"
FIGURES = "figures"
EVALUATION = "evaluation.json"
ENVIRONMENT = "environment.json"
TRACKING = "tracking.json"
UNREGISTERED = "unregistered"
LOCK = "lock"

FORGOTTEN = "forgotten/"
"""Begins the number that takes the place of a path which `vireid forget` removed."""

FORMAT = 2
"""Version of config record, checkpoint and rows together; runs without a number are of format 1."""

ENDED = "ended"
"""Time of a round's end in a row of `timings.jsonl`: ISO 8601, UTC. Runs of earlier versions have none."""

ROW_LABELS = ("round", "stage", "epoch", "search", ENDED)
"""Entries of a row of `metrics.jsonl` or `timings.jsonl` that are not measurements."""

WRITTEN = (CONFIG, CHECKPOINT, METRICS, TIMINGS, EVALUATION, ENVIRONMENT)
"""Files whose modification times give the run's; opening a run changes none of them."""

PHOTOGRAPHS = frozenset({"pairs", "retrieval"})
"""Figures made of images: as JPEG they have a seventh of the size."""

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def read_record(path: Path) -> dict[str, Any] | None:
    """Read `digest` and `config` of the run in a folder; None if there is no run.

    Every command reads this first, so only this function checks the format.

    Raises:
        CheckpointError: The file is damaged, of another program, or of a run of another format.
    """
    record = files.read_json(path / CONFIG)
    if record is not None and not {"digest", "config"} <= record.keys():
        raise CheckpointError(
            f"{path / CONFIG} was not written by this program", hint="choose a new or an empty folder"
        )
    if record is not None and record.get("format", 1) != FORMAT:
        raise CheckpointError(
            f"{path} is a run of format {record.get('format', 1)}; this version reads and writes format {FORMAT}",
            hint="use the version that wrote it, or train again under another name or in another folder",
        )
    if record is not None and not (isinstance(record["config"], dict) and isinstance(record["digest"], str)):
        raise CheckpointError(
            f"{path / CONFIG} holds no settings", hint="it was written by another version: read it with that one"
        )
    return record


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl` or `timings.jsonl`; empty without a file.

    Raises:
        CheckpointError: A line is not a row of numbers, or the rounds are not in their order.
    """
    rows, last = files.read_lines(path), 0
    for number, row in enumerate(rows, start=1):
        problem = next((f"no number in {name:.60}" for name, value in row.items() if not _fits(name, value)), None)
        if path.name == METRICS and problem is None:
            round_ = row.get("round")
            problem = "no round" if not isinstance(round_, int) else "a round out of order" if round_ <= last else None
            last = round_ if isinstance(round_, int) else last
        if problem is not None:
            raise CheckpointError(
                f"{path} is damaged: line {number} has {problem}",
                hint="repeat the training command: it restores the file from the checkpoint",
            )
    return rows


def _fits(name: str, value: Any) -> bool:
    if name in ("round", "epoch"):
        return type(value) is int
    return isinstance(value, str) if name in ROW_LABELS else value is None or type(value) in (int, float)


def write_record(path: Path, digest: str, config: Mapping[str, Any]) -> None:
    """Write the config record, which makes a folder a run."""
    files.write_json(path / CONFIG, {"format": FORMAT, "digest": digest, "config": config})


def kept_checkpoint(path: Path, number: int) -> Path:
    """Path of the kept checkpoint of a round: `checkpoints/round-012.pt`."""
    return path / CHECKPOINTS / f"round-{number:03d}.pt"


def labels_path(path: Path, number: int) -> Path:
    """Path of the pseudo-labels of a round: `labels/round-012.npz`."""
    return path / LABELS / f"round-{number:03d}.npz"


def queries_path(path: Path, number: int) -> Path:
    """Path of the worst queries of a round: `queries/round-012.json`."""
    return path / QUERIES / f"round-{number:03d}.json"


def pending_path(path: Path, name: str, number: int) -> Path:
    """Path of an intermediate result of an unfinished round: `pending/texts-121.pt`."""
    return path / PENDING / f"{name}-{number:03d}.pt"


def figure_path(path: Path, name: str, number: int) -> Path:
    """Path of a figure of a round: `figures/eps-curve-012.png`."""
    return path / FIGURES / f"{name}-{number:03d}{'.jpg' if name in PHOTOGRAPHS else '.png'}"


def round_figures(path: Path, number: int) -> list[Path]:
    """The existing figures of a round, sorted by name."""
    return sorted(file for file in (path / FIGURES).glob(f"*-{number:03d}.*") if file.suffix in MEDIA_TYPES)


def figures_of_rounds(path: Path) -> dict[int, dict[str, Path]]:
    """The existing figures of each round, ascending, by name."""
    found: dict[int, dict[str, Path]] = {}
    for file in sorted((path / FIGURES).glob("*-*.*")):
        name, _, number = file.stem.rpartition("-")
        if file.suffix in MEDIA_TYPES and number.isdecimal():
            found.setdefault(int(number), {})[name] = file
    return dict(sorted(found.items()))
