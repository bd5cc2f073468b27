"""Find runs that MLflow has not recorded completely, and log the missing parts from their folders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.experiment import planned_rounds
from pipeline.config.presets import validate_config
from pipeline.storage.layout import ENVIRONMENT, UNREGISTERED
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.run_reader import RecordedRun, read_runs
from pipeline.tracking.mlflow_tracker import MlflowTracker, has_run
from pipeline.tracking.replay import read_note, record_result, record_rounds


@dataclass(frozen=True, slots=True)
class SyncedRun:
    """Recorded and planned rounds of a synchronised run."""

    path: Path
    rounds: int
    planned: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"run": str(self.path), "rounds": self.rounds, "planned": self.planned}


def unsynced_runs(folder: Path) -> Iterator[Path]:
    """Runs in a folder whose MLflow record is incomplete or lost with `mlflow.db`, by name, except running ones.

    Raises:
        ConfigError: There is no such folder.
        TrackingError: `mlflow.db` cannot be read.
    """
    for run in read_runs(folder):
        if isinstance(run, RecordedRun) and run.holder is None:
            note = read_note(run.path)
            if note is None:
                continue
            unfinished = run.state == "finished" and note.ended != "FINISHED"
            lacks_rounds = note.ended is None or note.rounds < len(run.rounds)
            if unfinished or lacks_rounds or (run.path / UNREGISTERED).exists() or not has_run(folder, note):
                yield run.path


def sync_run(path: Path) -> SyncedRun:
    """Log the missing parts of a run to MLflow; a run that was never recorded gets a record.

    Raises:
        CheckpointError: The folder contains no run, or a process is training it.
        TrackingError: MLflow does not answer, or refuses a request.
    """
    with RunFolder.reopen(path) as folder:
        config, before = validate_config(folder.config), read_note(path)
        tracker = MlflowTracker(path.resolve().parent, folder, live=False)
        tracker.start(folder.config | {"digest": folder.digest})
        if (path / ENVIRONMENT).exists():
            tracker.attach(path / ENVIRONMENT)
        record_rounds(folder, tracker, checkpoints=config.execution.log_checkpoints)
        finished, planned = len(folder.read_metrics()), len(planned_rounds(config))
        if finished >= planned:
            record_result(folder, tracker)
        else:
            tracker.finish("FAILED" if before is not None and before.ended == "FAILED" else "KILLED")
        return SyncedRun(path, finished, planned)
