"""MLflow: where the numbers of rounds go so that they can be compared.

A run is one parent with every series, its step being the round, and one child for each round with that round's own
parameters, numbers and files: series draw curves, children stand side by side in a comparison of rounds.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import TrackingError
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.mlflow_client import (
    SQLITE,
    artifact_location,
    create_round,
    find_rounds,
    log_params,
    log_points,
    terminate,
)
from pipeline.tracking.mlflow_models import register_model
from pipeline.tracking.replay import TrackingNote, read_note, write_note
from pipeline.tracking.system_metrics import Monitors, SystemSampler
from pipeline.tracking.tracker import Numbers, Status

logger = logging.getLogger(__name__)

_EXPERIMENT = "vireid"
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Record:
    """Where a started run is recorded, since when, and the identifiers of its rounds by number."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    began: float
    rounds: dict[int, str] = field(default_factory=dict)


class MlflowTracker:
    """Records a run in MLflow, in the place that MLFLOW_TRACKING_URI names, or else in `mlflow.db` beside the runs.

    Runs are named by identifier, never through MLflow's active run, which belongs to one thread: tasks run in several.
    What is said twice is recorded once; a number that has changed since is added, and MLflow shows the newer one.

    Args:
        runs_folder: Where run folders live; holds `mlflow.db` and `mlflow-artifacts` unless another place is named.
        folder: The run's folder; names the run, and remembers its identifier for the process that goes on with it.
        monitors: What is measured of the machine while the run is recorded; nothing when None.
    """

    records = True

    def __init__(self, runs_folder: Path, folder: RunFolder, *, monitors: Monitors | None = None) -> None:
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{runs_folder.resolve() / 'mlflow.db'}"
        self._folder = folder
        self._started: _Record | None = None
        self._notes = threading.Lock()
        self._monitors = monitors or []
        self._sampler: SystemSampler | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Create the run, or find the one that an earlier process created; a second call does nothing.

        Args:
            config: The resolved configuration; recorded flat as parameters, and whole as `config.json`.

        Raises:
            TrackingError: MLflow does not answer, or refuses.
        """
        if self._started is not None:
            return
        logger.info("recording in MLflow at %s", self.uri)
        with self._answering():
            client = MlflowClient(tracking_uri=self.uri)
            record = self._found(client)
            if record is None:
                record = self._created(client)
            log_params(client, record.run_id, config)
            client.log_dict(record.run_id, dict(config), "config.json")
            self._started = record
        if self._monitors:
            self._sampler = SystemSampler(self._log_sample, self._monitors)

    def round(self, number: int, metrics: Numbers, params: Mapping[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Record a round as a child run, and its numbers as points of the run's series.

        Args:
            number: The round, from 1.
            metrics: Numbers by name, such as `train/loss/total`; infinite and undefined ones become gaps.
            params: What was particular to this round, such as its stage; may be nested. The first value stands.
            artifacts: Files to keep with the round.

        Raises:
            TrackingError: MLflow does not answer, or refuses.
        """
        with self._answering():
            record = self._record()
            repeated = number in record.rounds
            if not repeated:
                record.rounds[number] = create_round(record.client, record.experiment_id, record.run_id, number)
            child = record.rounds[number]
            log_params(record.client, child, params)
            log_points(record.client, child, number, metrics, repeated)
            log_points(record.client, record.run_id, number, metrics, repeated)
            for path in artifacts:
                record.client.log_artifact(child, str(path))
            terminate(record.client, child, "FINISHED")
            self._remember(rounds=number)

    def attach(self, path: Path) -> None:
        """Keep a file with the run as a whole; one of the same name is replaced.

        Raises:
            TrackingError: MLflow does not answer, or refuses.
        """
        with self._answering():
            record = self._record()
            record.client.log_artifact(record.run_id, str(path))

    def register(self, path: Path) -> None:
        """Log a model of the result with the run and register it; a second time, nothing is added.

        Args:
            path: What `pipeline.tracking.mlflow_models.save_model` wrote.

        Raises:
            TrackingError: MLflow does not answer, or refuses.
        """
        with self._answering():
            record = self._record()
            register_model(record.client, record.experiment_id, record.run_id, path)
            self._remember(models=True)

    def finish(self, status: Status) -> None:
        """End the run; before `start` there is nothing to end. Where MLflow does not answer, a warning says so."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        if self._started is None:
            return
        try:
            with self._answering():
                terminate(self._started.client, self._started.run_id, status)
                self._remember(ended=status)
        except TrackingError as error:
            logger.warning("MLflow was not told that the run is over: %s", error.message)

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
            _check_reachable(self.uri)
            yield
        except (MlflowException, OSError) as error:  # files are copied to a local store by ourselves
            reason = error.message if isinstance(error, MlflowException) else error.strerror or str(error)
            raise TrackingError(
                f"MLflow at {self.uri} cannot record this run: {reason}",
                hint="what the run has saved is intact: repeat the command when MLflow answers, with another "
                "MLFLOW_TRACKING_URI, or with --set execution.tracking=false",
            ) from error

    def _log_sample(self, numbers: Numbers) -> None:
        """Record how busy the machine is; the step is the second of the record, whichever process adds to it."""
        with self._answering():
            record = self._record()
            log_points(record.client, record.run_id, int(time.time() - record.began), numbers, repeated=False)

    def _remember(self, *, rounds: int = 0, models: bool = False, ended: Status | None = None) -> None:
        """Note in the run's folder what MLflow knows from here on."""
        with self._notes:  # rounds may be recorded from several threads
            note = read_note(self._folder.path)
            assert note is not None, "a record that was started has a note"
            changed = replace(
                note, rounds=max(rounds, note.rounds), models=models or note.models, ended=ended or note.ended
            )
            if changed != note:
                write_note(self._folder.path, changed)

    def _found(self, client: MlflowClient) -> _Record | None:
        """The record of the process that this one goes on for."""
        note = read_note(self._folder.path)
        if note is None:
            return None
        run_id = note.run_id
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
        write_note(self._folder.path, replace(note, ended=None))
        experiment_id = run.info.experiment_id
        return _Record(
            client, experiment_id, run_id, run.info.start_time / 1000, find_rounds(client, experiment_id, run_id)
        )

    def _created(self, client: MlflowClient) -> _Record:
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        if experiment is None:
            experiment_id = client.create_experiment(_EXPERIMENT, artifact_location=artifact_location(self.uri))
        else:
            experiment_id = experiment.experiment_id
        tags = {"vireid.digest": self._folder.digest}
        run = client.create_run(experiment_id, tags=tags, run_name=self._folder.path.name)
        write_note(self._folder.path, TrackingNote(run.info.run_id))
        return _Record(client, experiment_id, run.info.run_id, run.info.start_time / 1000)


def _check_reachable(uri: str) -> None:
    """Fail at once where no server listens: MLflow's own requests are repeated for minutes before they give up.

    Raises:
        OSError: Nobody answers at the address. Servers behind a proxy are left to MLflow.
    """
    place = urlsplit(uri)
    if place.scheme not in ("http", "https") or place.hostname is None:
        return
    if place.scheme in getproxies() and not proxy_bypass(place.hostname):
        return
    port = place.port or (443 if place.scheme == "https" else 80)
    socket.create_connection((place.hostname, port), timeout=_PATIENCE_SECONDS).close()
