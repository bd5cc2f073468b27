"""Run folders as a training process leaves them, written without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.experiment import digest_of, record_of
from pipeline.config.presets import load_config
from pipeline.storage.run_folder import RunFolder

HEADLINE = "test/sysu/all/1-shot/agw"


def row(number: int, r1: float | None = None, mean: float | None = None, loss: float = 1.0) -> dict[str, Any]:
    """The metrics of a round; without scores it was not measured."""
    numbers: dict[str, Any] = {"round": number, "stage": "prepare", "epoch": number, "train/loss/total": loss}
    if r1 is not None:
        numbers |= {f"{HEADLINE}/r1": r1, f"{HEADLINE}/map": mean, "test/sysu/indoor/1-shot/agw/r1": 0.9}
    return numbers


def begin_run(path: Path, rows: Sequence[Mapping[str, Any]], *changes: str) -> RunFolder:
    """A run of preset `smoke` with two planned rounds and these finished ones, each of which took 2.5 s; still open."""
    config = load_config("smoke", ("stages.prepare_rounds=2", "stages.clip_rounds=0", *changes))
    folder = RunFolder.open(path, record_of(config), digest_of(config))
    folder.write_metrics(rows)
    folder.write_timings([{"search": "exact", "seconds/total": 2.5} for _ in rows])
    return folder


def make_run(path: Path, rows: Sequence[Mapping[str, Any]], *changes: str) -> Path:
    """The same, left by its process."""
    begin_run(path, rows, *changes).close()
    return path
