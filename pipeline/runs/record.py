"""What a run leaves behind: its folder and its tracker, written by the one process that records."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clustering.dbscan import Clustering
from models.modality import PerModality
from pipeline.config.shared import KeptCheckpoints
from pipeline.errors import TrackingError
from pipeline.evaluation.report import EvaluationReport
from pipeline.runtime.environment import describe_environment
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.replay import record_result, record_rounds
from pipeline.tracking.tracker import Tracker
from pipeline.training.state import TrainingState

logger = logging.getLogger(__name__)

_clock = time.monotonic

UI_VARIABLE = "VIREID_MLFLOW_UI"
"""The environment variable that names MLflow's user interface where it is at another address."""

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `make ui` answers."""

_PAUSE = 10
"""An attempt to reach a tracker that failed is repeated after this many times its own duration."""


def ui_address() -> str:
    """Where MLflow's user interface shows the runs of this machine."""
    return os.environ.get(UI_VARIABLE) or UI_ADDRESS


@dataclass(slots=True, eq=False)
class RunRecord:
    """The folder of a run and its tracker, in step with each other.

    A tracker that stops answering costs the run nothing but a warning: it is asked again after each round, and then
    told what it missed. An attempt that took long is followed by a pause ten times as long.

    Attributes:
        folder: Of the run.
        tracker: Who is told.
        keep_checkpoints: Which rounds' checkpoints are kept: none but the last, all, or every so many.
        log_checkpoints: Whether the tracker gets these as well.
    """

    folder: RunFolder
    tracker: Tracker
    keep_checkpoints: KeptCheckpoints = "last"
    log_checkpoints: bool = False
    _unheard: bool = field(default=False, init=False)
    _pause_until: float = field(default=-math.inf, init=False)

    def begin(self, state: TrainingState[Any], settings: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
        """Record what the run is made with, and catch up with what an interrupted process could not publish.

        Args:
            state: As the checkpoint left it.
            settings: The resolved configuration.
            made_with: Device, weights and data.

        Raises:
            TrackingError: The tracker does not answer at the very start, when nothing is lost by saying so.
        """
        environment = self.folder.write_environment(describe_environment(made_with["device"]) | dict(made_with))
        self.tracker.start(dict(settings) | {"digest": self.folder.digest})
        self.tracker.attach(environment)
        self.publish(state)

    def finish_round(
        self, state: TrainingState[Any], labels: PerModality[Clustering] | None, report: EvaluationReport | None
    ) -> None:
        """Write what the round that `state` has completed leaves behind; it counts once the checkpoint is in place."""
        if labels is not None:
            self.folder.save_labels(state.completed, labels)
        if report is not None:
            self.folder.write_evaluation(report.to_dict())
        self.folder.save_checkpoint(state.to_checkpoint())
        self.folder.clear_pending()
        self.publish(state)

    def publish(self, state: TrainingState[Any]) -> None:
        """Bring everything else up to the checkpoint; what is there already is not repeated."""
        if state.completed > 0 and self._is_kept(state.completed):
            self.folder.keep_checkpoint(state.completed)
        self.folder.write_metrics(state.metrics)
        self.folder.write_timings(state.timings)
        if _clock() >= self._pause_until:
            self._tell(self._record_rounds)

    def finish(self, report: EvaluationReport | None) -> None:
        """Close the record of a complete run.

        Args:
            report: The run's result; None where the data set names no images to measure by.
        """
        if report is not None:
            self.folder.write_evaluation(report.to_dict())
        self._tell(self._record_everything)
        if self._unheard:
            logger.warning("MLflow misses a part of this run: `vireid runs sync %s` hands it over", self.folder.path)
            return
        page = self.tracker.compare_url(ui_address())
        if page is not None:
            logger.info("rounds side by side, while `make ui` runs: %s", page)

    def _is_kept(self, number: int) -> bool:
        match self.keep_checkpoints:
            case "last":
                return False
            case "all":
                return True
            case int(every):
                return number % every == 0

    def _record_rounds(self) -> None:
        record_rounds(self.folder, self.tracker, checkpoints=self.log_checkpoints)

    def _record_everything(self) -> None:
        self._record_rounds()
        record_result(self.folder, self.tracker)

    def _tell(self, say: Callable[[], None]) -> None:
        """Go on where the tracker does not answer, and say so once."""
        began = _clock()
        try:
            say()
        except TrackingError as error:
            if not self._unheard:
                logger.warning("%s; the run goes on, and MLflow is told what it misses when it answers", error.message)
            self._unheard = True
            now = _clock()
            self._pause_until = now + _PAUSE * (now - began)
        else:
            if self._unheard:
                logger.info("MLflow answers again, and has been told what it missed")
            self._unheard = False
