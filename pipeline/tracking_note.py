"""What a run's folder remembers of its record in MLflow, so that any process can bring that record up to date."""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import durable_files
from pipeline.run_files import TRACKING
from pipeline.tracker import Status


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
    content = durable_files.read_json(run / TRACKING)
    if content is None:
        return None
    known = {name: content[name] for name in ("rounds", "models", "ended") if name in content}
    return TrackingNote(str(content["run_id"]), **known)


def write_note(run: Path, note: TrackingNote) -> None:
    """Replace what the folder of a run remembers."""
    durable_files.write_json(run / TRACKING, asdict(note))
