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


@dataclass(frozen=True, slots=True)
class TrackingNote:
    """How far MLflow knows a run.

    Attributes:
        run_id: Under which identifier.
        rounds: All rounds up to this one are recorded, with their files.
        models: Whether the result's models are registered.
        ended: The state in which the record was left; None while it is open, or where MLflow was not told.
    """

    run_id: str
    rounds: int = 0
    models: bool = False
    ended: Status | None = None


def read_note(run: Path) -> TrackingNote | None:
    """What the folder of a run remembers; None before the run is first recorded."""
    content = atomic_files.read_json(run / TRACKING)
    if content is None:
        return None
    known = {name: content[name] for name in ("rounds", "models", "ended") if name in content}
    return TrackingNote(str(content["run_id"]), **known)


def write_note(run: Path, note: TrackingNote) -> None:
    """Replace what the folder of a run remembers."""
    atomic_files.write_json(run / TRACKING, asdict(note))


def record_rounds(folder: RunFolder, tracker: Tracker, *, checkpoints: bool = False) -> None:
    """Log the finished rounds that a tracker lacks, the oldest first; nothing for one that records nothing.

    Args:
        folder: Of the run.
        tracker: Started.
        checkpoints: Whether kept checkpoints are logged as well.

    Raises:
        TrackingError: It does not answer; the note in the folder counts the rounds that were logged.
    """
    if not tracker.records:
        return
    note = read_note(folder.path)
    rounds = list(zip(folder.read_metrics(), folder.read_timings(), strict=False))  # a kill may leave one row alone
    if note is not None and note.rounds > len(rounds):  # somebody went back to a kept checkpoint
        note = replace(note, rounds=len(rounds))
        write_note(folder.path, note)
    known = 0 if note is None else note.rounds
    for metrics, timings in rounds[known:]:
        row = metrics | timings
        number = int(row["round"])
        # What was infinite or undefined is null in the files, and a gap in a chart.
        numbers = {name: math.nan if one is None else one for name, one in row.items() if name not in ROW_LABELS}
        kept = folder.kept_checkpoint(number)
        files = folder.round_files(number) + [kept] * (checkpoints and kept.exists())
        tracker.round(number, numbers, {name: row[name] for name in ROW_LABELS}, files)


def record_result(folder: RunFolder, tracker: Tracker) -> None:
    """Log what a complete run leaves besides its rounds, and end the record.

    A model's folder is removed once the tracker has registered it; a tracker that records nothing leaves all of them to
    a later one.

    Raises:
        TrackingError: It does not answer.
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
        model.rename(registered)  # a kill while it is removed leaves nothing that looks like a model
        shutil.rmtree(registered)
    shutil.rmtree(folder.unregistered, ignore_errors=True)
    tracker.finish("FINISHED")
