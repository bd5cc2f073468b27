"""MLflow: where the numbers of rounds go so that they can be compared.

A run is one parent with every series, its step being the round, and one child for each round with that round's own
parameters, numbers and files: series draw curves, children stand side by side in a comparison of rounds.
"""

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.errors import ConfigError
from pipeline.flat_settings import flat
from pipeline.run_folder import RunFolder
from pipeline.tracker import Numbers, Status

logger = logging.getLogger(__name__)

_SQLITE = "sqlite:///"
_EXPERIMENT = "vireid"
_ROUND_TAG = "vireid.round"
_MAX_PARAMS = 100  # MLflow's own limits, by which a server refuses what is larger
_MAX_VALUE_LENGTH = 6000


@dataclass(frozen=True, slots=True)
class _Record:
    """Where a started run is recorded: its own identifier, and those of its rounds by number."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    rounds: dict[int, str] = field(default_factory=dict)


class MlflowTracker:
    """Records a run in MLflow, in the place that MLFLOW_TRACKING_URI names, or else in `mlflow.db` beside the runs.

    Runs are named by identifier, never through MLflow's active run, which belongs to one thread: tasks run in several.
    What is said twice is recorded once; a number that has changed since is added, and MLflow shows the newer one.

    Args:
        runs_folder: Where run folders live; holds `mlflow.db` and `mlflow-artifacts` unless another place is named.
        folder: The run's folder; names the run, and remembers its identifier for the process that goes on with it.
    """

    def __init__(self, runs_folder: Path, folder: RunFolder) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{runs_folder.resolve() / 'mlflow.db'}"
        self._folder = folder
        self._started: _Record | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Create the run, or find the one that an earlier process created; a second call does nothing.

        Args:
            config: The resolved configuration; recorded flat as parameters, and whole as `config.json`.

        Raises:
            ConfigError: MLflow does not answer, or refuses.
        """
        if self._started is not None:
            return
        logger.info("recording in MLflow at %s", self.uri)
        with self._answering():
            client = MlflowClient(tracking_uri=self.uri)
            record = self._found(client)
            if record is None:
                record = self._created(client)
            _log_params(client, record.run_id, config)
            client.log_dict(record.run_id, dict(config), "config.json")
            self._started = record

    def round(self, number: int, metrics: Numbers, params: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Record a round as a child run, and its numbers as points of the run's series.

        Args:
            number: The round, from 1.
            metrics: Numbers by name, such as `train/loss/total`; infinite and undefined ones become gaps.
            params: What was particular to this round, such as its stage; may be nested. The first value stands.
            artifacts: Files to keep with the round.

        Raises:
            ConfigError: MLflow does not answer, or refuses.
        """
        with self._answering():
            record = self._record()
            repeated = number in record.rounds
            if not repeated:
                record.rounds[number] = _create_round(record, number)
            child = record.rounds[number]
            _log_params(record.client, child, params)
            _log_points(record.client, child, number, metrics, repeated)
            _log_points(record.client, record.run_id, number, metrics, repeated)
            for path in artifacts:
                record.client.log_artifact(child, str(path))
            _terminate(record.client, child, "FINISHED")

    def evaluation(self, number: int, metrics: Numbers, artifacts: Sequence[Path] = ()) -> None:
        """Add numbers to a round that is recorded already, and files to the run as a whole.

        Args:
            number: The round whose weights were measured, from 1.
            metrics: Numbers by name, such as `test/sysu/all/1-shot/agw/r1`.
            artifacts: Files to keep with the run, such as `evaluation.json`.

        Raises:
            ConfigError: MLflow does not answer, or refuses.
        """
        with self._answering():
            record = self._record()
            for run_id in (record.rounds.get(number), record.run_id):
                if run_id is not None:
                    _log_points(record.client, run_id, number, metrics, repeated=True)
        for path in artifacts:
            self.attach(path)

    def attach(self, path: Path) -> None:
        """Keep a file with the run as a whole; one of the same name is replaced.

        Raises:
            ConfigError: MLflow does not answer, or refuses.
        """
        with self._answering():
            record = self._record()
            record.client.log_artifact(record.run_id, str(path))

    def finish(self, status: Status) -> None:
        """End the run; before `start` there is nothing to end. Where MLflow does not answer, a warning says so."""
        if self._started is None:
            return
        try:
            _terminate(self._started.client, self._started.run_id, status)
        except MlflowException as error:
            logger.warning("MLflow at %s was not told that the run is over: %s", self.uri, error.message)

    def compare_url(self, ui: str) -> str:
        """The page of MLflow's user interface that shows the rounds recorded so far side by side.

        Args:
            ui: Where the user interface answers, such as `http://127.0.0.1:5000`; a server that records the run is
                taken instead.
        """
        record = self._record()
        runs = [record.rounds[number] for number in sorted(record.rounds)]
        query = (("runs", runs), ("experiments", [record.experiment_id]))
        return f"{self._ui(ui)}/#/compare-runs?" + "&".join(
            f"{name}={quote(json.dumps(value))}" for name, value in query
        )

    def run_url(self, ui: str) -> str:
        """The run's own page of MLflow's user interface.

        Args:
            ui: As for `compare_url`; a server that records the run is taken instead.
        """
        record = self._record()
        return f"{self._ui(ui)}/#/experiments/{record.experiment_id}/runs/{record.run_id}"

    def _ui(self, ui: str) -> str:
        """Where the user interface is: a server that records the run shows it, too."""
        return self.uri.rstrip("/") if self.uri.startswith("http") else ui

    def _record(self) -> _Record:
        assert self._started is not None, "the tracker was not started"
        return self._started

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise ConfigError(
                f"MLflow at {self.uri} cannot record this run: {error.message}",
                hint="what the run has saved is intact: repeat the command when MLflow answers, with another "
                "MLFLOW_TRACKING_URI, or with --set execution.tracking=false",
            ) from error

    def _found(self, client: MlflowClient) -> _Record | None:
        """The record of the process that this one goes on for."""
        run_id = self._folder.read_tracking_id()
        if run_id is None:
            return None
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage != "active":
            logger.warning("MLflow at %s no longer has run %s: a new one is begun", self.uri, run_id)
            return None
        client.update_run(run_id, status="RUNNING")
        experiment_id = run.info.experiment_id
        children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"
        found = client.search_runs([experiment_id], children, max_results=10_000)
        rounds = {int(child.data.tags[_ROUND_TAG]): child.info.run_id for child in found}
        return _Record(client, experiment_id, run_id, rounds)

    def _created(self, client: MlflowClient) -> _Record:
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        if experiment is None:
            experiment_id = client.create_experiment(_EXPERIMENT, artifact_location=_artifact_location(self.uri))
        else:
            experiment_id = experiment.experiment_id
        tags = {"vireid.digest": self._folder.digest}
        run = client.create_run(experiment_id, tags=tags, run_name=self._folder.path.name)
        self._folder.write_tracking_id(run.info.run_id)
        return _Record(client, experiment_id, run.info.run_id)


def _artifact_location(uri: str) -> str | None:
    """Beside a database file, where MLflow would take the working folder; a server decides for itself."""
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).resolve().parent / "mlflow-artifacts").as_uri()


def _create_round(record: _Record, number: int) -> str:
    tags = {MLFLOW_PARENT_RUN_ID: record.run_id, _ROUND_TAG: str(number)}
    run = record.client.create_run(record.experiment_id, tags=tags, run_name=f"round-{number:03d}")
    return str(run.info.run_id)


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Flat and as text, each once: MLflow refuses a second value."""
    known = client.get_run(run_id).data.params
    new = [Param(name, _text(value)) for name, value in flat(params) if name not in known]
    for first in range(0, len(new), _MAX_PARAMS):
        client.log_batch(run_id, params=new[first : first + _MAX_PARAMS])


def _log_points(client: MlflowClient, run_id: str, step: int, metrics: Numbers, repeated: bool) -> None:
    """One point a series; of a repeated round, only those that are missing or have changed."""
    now = time.time_ns() // 1_000_000
    # Stores replace infinity by the largest number, which no chart survives: it becomes undefined, and shows as a gap.
    finite = {name: float(value) if math.isfinite(value) else math.nan for name, value in metrics.items()}
    points = [Metric(name, value, now, step) for name, value in finite.items()]
    if repeated:
        points = [point for point in points if not _is_recorded(client, run_id, point)]
    client.log_batch(run_id, metrics=points)


def _is_recorded(client: MlflowClient, run_id: str, point: Metric) -> bool:
    values = [old.value for old in client.get_metric_history(run_id, point.key) if old.step == point.step]
    return bool(values) and (values[-1] == point.value or (math.isnan(values[-1]) and math.isnan(point.value)))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 1] + "…"


def _terminate(client: MlflowClient, run_id: str, status: Status) -> None:
    # MLflow greets each ended run on stdout, where our results go, when it talks to a server.
    with contextlib.redirect_stdout(sys.stderr):
        client.set_terminated(run_id, status)
