"""What a run leaves behind: its folder and its tracker, written by the one process that records."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clustering.dbscan import PseudoLabels
from models.modality import PerModality
from pipeline.environment import describe_environment
from pipeline.evaluation.report import EvaluationReport
from pipeline.run_folder import RunFolder
from pipeline.tracker import Tracker
from pipeline.training.state import TrainingState

logger = logging.getLogger(__name__)

UI_VARIABLE = "VIREID_MLFLOW_UI"
"""The environment variable that names MLflow's user interface where it is at another address."""

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `make ui` answers."""


def ui_address() -> str:
    """Where MLflow's user interface shows the runs of this machine."""
    return os.environ.get(UI_VARIABLE) or UI_ADDRESS


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """The folder of a run and its tracker, in step with each other."""

    folder: RunFolder
    tracker: Tracker

    def begin(self, state: TrainingState[Any], settings: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
        """Record what the run is made with, and catch up with what an interrupted process could not publish.

        Args:
            state: As the checkpoint left it.
            settings: The resolved configuration.
            made_with: Device, weights and data.
        """
        environment = self.folder.write_environment(describe_environment(made_with["device"]) | dict(made_with))
        self.tracker.start(dict(settings) | {"digest": self.folder.digest})
        self.tracker.attach(environment)
        self.publish(state)

    def save(self, state: TrainingState[Any]) -> None:
        """Write the checkpoint, all or nothing."""
        self.folder.save_checkpoint(state.to_checkpoint())

    def finish_round(
        self, state: TrainingState[Any], labels: PerModality[PseudoLabels] | None, report: EvaluationReport | None
    ) -> None:
        """Write what the round that `state` has completed leaves behind; it counts once the checkpoint is in place."""
        if labels is not None:
            self.folder.save_labels(state.completed, labels)
        if report is not None:
            self.folder.write_evaluation(report.to_dict())
        self.save(state)
        self.publish(state)

    def publish(self, state: TrainingState[Any]) -> None:
        """Bring the metrics files and the tracker up to the checkpoint; what is there already is not repeated."""
        self.folder.write_metrics(state.metrics)
        self.folder.write_timings(state.timings)
        if state.completed > 0:
            row, position = state.metrics[-1] | state.timings[-1], ("round", "stage", "epoch", "search")
            numbers = {name: value for name, value in row.items() if name not in position}
            self.tracker.round(
                state.completed,
                numbers,
                {name: row[name] for name in position},
                self.folder.round_files(state.completed),
            )

    def finish(self, report: EvaluationReport | None) -> None:
        """Close the record of a complete run.

        Args:
            report: The run's result; None where the data set names no images to measure by.
        """
        if report is not None:
            self.tracker.attach(self.folder.write_evaluation(report.to_dict()))
        self.tracker.attach(self.folder.checkpoint_path)
        self.tracker.finish("FINISHED")
        page = self.tracker.compare_url(ui_address())
        if page is not None:
            logger.info("rounds side by side, while `make ui` runs: %s", page)
