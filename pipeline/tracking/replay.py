"""Replay finished rounds from the run folder to the tracker.

The tracker is fed from files only, so it never sees unsaved data, and rounds missed in an outage are logged later.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.runtime import atomic_files
from pipeline.storage.layout import ENDED, ROW_LABELS, TRACKING
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.run_reader import headline_of
from pipeline.tracking.tracker import Span, Status, Tracker

MODELS_FORM = 2
"""Of the registered models: since 2, that of tables holds the weights as safetensors instead of two graphs."""


HEADLINE_NAMES = {"rank1": "r1", "mAP": "map"}
"""Names in MLflow of the headline search's numbers in percent, and their names in a round's row."""


@dataclass(frozen=True, slots=True)
class TrackingNote:
    """What MLflow has of a run: all rounds up to `rounds`, the models of the result, the final status.

    `form` is that of the registered models. `ended` is None while the MLflow run is open, or if MLflow did not receive
    the status. `store` is the address of MLflow without passwords; None for `mlflow.db` beside the run.
    """

    run_id: str
    rounds: int = 0
    models: bool = False
    form: int = 1
    ended: Status | None = None
    store: str | None = None


def read_note(run: Path) -> TrackingNote | None:
    """The note in a run's folder; None before the run is first recorded."""
    content = atomic_files.read_json(run / TRACKING)
    if content is None:
        return None
    return atomic_files.checked(TrackingNote, content, run / TRACKING, hint="remove it: the run is then recorded anew")


def write_note(run: Path, note: TrackingNote) -> None:
    """Replace the note in a run's folder."""
    atomic_files.write_json(run / TRACKING, asdict(note))


def record_rounds(folder: RunFolder, tracker: Tracker, *, checkpoints: bool = False) -> None:
    """Log the finished rounds that a started tracker lacks, and with `checkpoints` also kept checkpoints.

    Raises:
        TrackingError: MLflow does not answer; the note in the folder counts the logged rounds.
    """
    if not tracker.records:
        return
    note = read_note(folder.path)
    rounds = list(zip(folder.read_metrics(), folder.read_timings(), strict=False))  # a kill may leave one file behind
    if note is not None and note.rounds > len(rounds):  # the user went back to a kept checkpoint
        note = replace(note, rounds=len(rounds))
        write_note(folder.path, note)
    known, headline = 0 if note is None else note.rounds, headline_of(metrics for metrics, _ in rounds)
    for metrics, timings in rounds[known:]:
        row = metrics | timings
        number = int(row["round"])
        # Infinite or undefined numbers are null in the files, and gaps in charts.
        numbers = {name: math.nan if one is None else one for name, one in row.items() if name not in ROW_LABELS}
        kept = folder.kept_checkpoint(number)
        files = folder.round_files(number) + [kept] * (checkpoints and kept.exists())
        labels = {name: row[name] for name in ROW_LABELS if name in row and name != ENDED}
        tracker.round(number, headline_numbers(row, headline) | numbers, labels, files, span_of(row))


def headline_numbers(row: Mapping[str, Any], headline: str | None) -> dict[str, float]:
    """Rank-1 and mAP of the headline search in percent, of a round that was measured.

    MLflow's pages begin with the numbers that were logged first, so these come first.
    """
    names = {name: f"{headline}/{short}" for name, short in HEADLINE_NAMES.items()}
    return {name: 100.0 * row[full] for name, full in names.items() if row.get(full) is not None}


def span_of(row: Mapping[str, Any]) -> Span | None:
    """When a round began and ended, in s since 1970; None of a run of an earlier version."""
    try:
        ended = datetime.fromisoformat(row[ENDED]).timestamp()
    except (KeyError, ValueError):
        return None
    return ended - (row.get("seconds/total") or 0.0), ended


def record_result(folder: RunFolder, tracker: Tracker) -> None:
    """Log evaluation, checkpoint and models of a complete run, and end the record.

    A model's folder is removed once it is registered; `SilentTracker` leaves all of them to a later tracker.
    """
    if not tracker.records:
        return
    for path in (folder.evaluation_path, folder.checkpoint_path):
        if path.exists():
            tracker.attach(path)
    for model in folder.unregistered_models():
        tracker.register(model)
        registered = model.with_name(model.name + atomic_files.TEMPORARY)
        shutil.rmtree(registered, ignore_errors=True)
        model.rename(registered)  # a kill during removal leaves no partial model
        shutil.rmtree(registered)
    shutil.rmtree(folder.unregistered, ignore_errors=True)
    tracker.finish("FINISHED")
