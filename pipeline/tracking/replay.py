"""Replay finished rounds from the run folder to the tracker.

The tracker is fed from files only, so it never sees unsaved data, and rounds missed in an outage are logged later.
"""

import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.runtime import atomic_files
from pipeline.storage.layout import ROW_LABELS, TRACKING
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.tracker import Status, Tracker

MODELS_FORM = 2
"""Of the registered models: since 2, that of tables holds the weights as safetensors instead of two graphs."""


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
    known = 0 if note is None else note.rounds
    for metrics, timings in rounds[known:]:
        row = metrics | timings
        number = int(row["round"])
        # Infinite or undefined numbers are null in the files, and gaps in charts.
        numbers = {name: math.nan if one is None else one for name, one in row.items() if name not in ROW_LABELS}
        kept = folder.kept_checkpoint(number)
        files = folder.round_files(number) + [kept] * (checkpoints and kept.exists())
        tracker.round(number, numbers, {name: row[name] for name in ROW_LABELS}, files)


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
