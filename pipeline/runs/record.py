"""Output of a run: its folder and its tracker, written by rank 0."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.shared import KeptCheckpoints
from pipeline.errors import TrackingError
from pipeline.evaluation.report import EvaluationReport
from pipeline.runtime.environment import describe_environment
from pipeline.secrets import clickable
from pipeline.storage.label_files import RoundLabels
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.replay import record_result, record_rounds
from pipeline.tracking.tracker import Tracker
from pipeline.training.state import TrainingState

logger = logging.getLogger(__name__)

_clock = time.monotonic

UI_VARIABLE = "VIREID_MLFLOW_UI"
"""Environment variable with the address of MLflow's user interface, if it is another one."""

UI_ADDRESS = "http://127.0.0.1:5000"
"""Address of `make ui`."""

FLOW_RUN_PAGE: ContextVar[str | None] = ContextVar("flow_run_page", default=None)
"""The page of the Prefect flow run that trains here; None for a command at a terminal, whose server ends with it."""

_PAUSE = 10
"""Back-off: after a failed call of t seconds, wait 10 t."""


def ui_address() -> str:
    """Address of MLflow's user interface for the runs of this machine."""
    return clickable(os.environ.get(UI_VARIABLE) or UI_ADDRESS)


@dataclass(slots=True, eq=False)
class RunRecord:
    """The folder of a run and its tracker, in step with each other.

    A tracker that stops answering only causes a warning: the next round tries again and sends what is missing, after a
    pause of ten times the duration of a failed attempt. `log_checkpoints` sends kept checkpoints to the tracker, too.
    """

    folder: RunFolder
    tracker: Tracker
    keep_checkpoints: KeptCheckpoints = "last"
    log_checkpoints: bool = False
    _unreachable: bool = field(default=False, init=False)
    _pause_until: float = field(default=-math.inf, init=False)

    def begin(self, state: TrainingState[Any], settings: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
        """Record settings, device, weights and data of the run, and publish what an interrupted process did not."""
        environment = self.folder.write_environment(describe_environment(made_with["device"]) | dict(made_with))
        self.tracker.start(dict(settings) | {"digest": self.folder.digest})
        self.tracker.attach(environment)
        self.publish(state)

    def finish_round(
        self, state: TrainingState[Any], labels: RoundLabels | None, report: EvaluationReport | None
    ) -> None:
        """Write the completed round of `state`; it counts once the checkpoint is in place."""
        if labels is not None:
            self.folder.save_labels(state.completed, labels)
        if report is not None:
            self.folder.write_evaluation(report.to_dict())
        self.folder.save_checkpoint(state.to_checkpoint())
        self.folder.clear_pending()
        self.publish(state)

    def publish(self, state: TrainingState[Any]) -> None:
        """Bring the rest of the folder and the tracker up to the checkpoint, without repetition."""
        if state.completed > 0 and self._is_kept(state.completed):
            self.folder.keep_checkpoint(state.completed)
        self.folder.write_metrics(state.metrics)
        self.folder.write_timings(state.timings)
        if _clock() >= self._pause_until:
            self._send(self._record_rounds)

    def finish(self, report: EvaluationReport | None) -> None:
        """Close the record of a complete run; `report` is None if the data set has no images for evaluation."""
        if report is not None:
            self.folder.write_evaluation(report.to_dict())
        self._send(self._record_everything)
        if self._unreachable:
            logger.warning("MLflow misses a part of this run: `vireid runs sync %s` sends it", self.folder.path)
            return
        ui = ui_address()
        for what, page in (("runs", self.tracker.table_url(ui)), ("rounds side by side", self.tracker.compare_url(ui))):
            if page is not None:
                logger.info("MLflow, while `make ui` runs: %s: %s", what, page)

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

    def _send(self, call: Callable[[], None]) -> None:
        """Continue if the tracker does not answer, with one warning."""
        began = _clock()
        try:
            call()
        except TrackingError as error:
            if not self._unreachable:
                logger.warning(
                    "%s; the run continues, and MLflow receives the missing rounds when it answers (%s)",
                    error.message,
                    error.hint,
                )
            self._unreachable = True
            now = _clock()
            self._pause_until = now + _PAUSE * (now - began)
        else:
            if self._unreachable:
                logger.info("MLflow answers again, and has received the missing rounds")
            self._unreachable = False
