"""Record runs in MLflow: a parent run with every metric, its step being the round, and a child run for each round.

Metrics of the parent are shown as curves; child runs have the parameters, metrics and files of a round and can be
compared with each other.
"""

import contextlib
import json
import logging
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.config.experiment import flat, marks_of
from pipeline.errors import TrackingError
from pipeline.secrets import clickable, masked
from pipeline.storage.run_folder import RunFolder
from pipeline.storage.run_reader import headline_of
from pipeline.tracking.mlflow_facts import is_measured, log_data_set, log_description, log_figures, source_tags
from pipeline.tracking.mlflow_models import register_model
from pipeline.tracking.places import EXPERIMENT, MODEL_TRAINING, artifact_location, runs_page
from pipeline.tracking.replay import HEADLINE_NAMES, MODELS_FORM, TrackingNote, read_note, span_of, write_note
from pipeline.tracking.store import (
    StoreError,
    answering,
    check,
    default_uri,
    prepare,
    remove_left_uploads,
    restore_command,
    sqlite_file,
    tracking_uri,
)
from pipeline.tracking.system_metrics import Monitors, SystemSampler
from pipeline.tracking.tracker import Numbers, Span, Status

logger = logging.getLogger(__name__)

_ROUND_TAG = "vireid.round"
_DIGEST_TAG = "vireid.digest"
_AT_THE_START = (
    "the run folder is intact: repeat the command when MLflow answers, with another MLFLOW_TRACKING_URI, or with "
    "--set execution.tracking=false"
)
_MAX_PARAMS = 100  # a batch; MLflow's own limits
_MAX_VALUE_LENGTH = 6000


@dataclass(frozen=True, slots=True)
class _Record:
    """MLflow's identifiers of a run and of its rounds by number; `began` is its start time in s."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    began: float
    rounds: dict[int, str] = field(default_factory=dict)


class MlflowTracker:
    """Records a run at MLFLOW_TRACKING_URI, by default in `mlflow.db` and `mlflow-artifacts` of `runs_folder`.

    Runs are addressed by identifier, never as MLflow's active run, which belongs to one thread: tasks run in several.
    Repeated calls record nothing twice; for a changed number MLflow shows the newer one. The run's folder keeps the
    identifier for the process that resumes the run. `monitors` measure the machine while the run is recorded. A run
    that is not `live` ends when its last round did.
    """

    records = True

    def __init__(
        self, runs_folder: Path, folder: RunFolder, *, monitors: Monitors | None = None, live: bool = True
    ) -> None:
        self.uri = tracking_uri(runs_folder)
        self._runs = runs_folder
        self._folder = folder
        self._live = live
        self._started: _Record | None = None
        self._notes = threading.Lock()
        self._monitors = monitors or []
        self._sampler: SystemSampler | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """Create the run, or find the one of an earlier process; a second call does nothing.

        The settings are recorded as flat parameters, and as `config.json`. Raises `TrackingError`, as all calls do.
        """
        if self._started is not None:
            return
        logger.info("recording in MLflow at %s", masked(self.uri))
        with self._answering(_AT_THE_START):
            prepare(self.uri)
            prepare(os.environ.get("MLFLOW_REGISTRY_URI") or self.uri)
            client = MlflowClient(tracking_uri=self.uri)
            experiment_id = self._experiment(client)
            record = self._found(client) or self._created(client, experiment_id)
            _log_params(client, record.run_id, config)
            client.log_dict(record.run_id, dict(config), "config.json")
            log_data_set(client, record.run_id, self._folder)
            log_description(client, record.run_id, self._folder)
            self._started = record
        if self._monitors:
            self._sampler = SystemSampler(self._log_sample, self._monitors)

    def round(
        self,
        number: int,
        metrics: Numbers,
        params: Mapping[str, Any],
        artifacts: Sequence[Path] = (),
        span: Span | None = None,
    ) -> None:
        """Record a round as a child run; its metrics also in the parent run, and there its figures by step.

        Infinite and undefined metrics become gaps in curves; of repeated `params` the first value is kept.
        """
        with self._answering():
            record = self._record()
            began, ended = (None, None) if span is None else map(_milliseconds, span)
            repeated = number in record.rounds
            if not repeated:
                record.rounds[number] = _create_round(record, number, began)
            child = record.rounds[number]
            _log_params(record.client, child, params)
            _log_points(record.client, child, number, metrics, repeated, ended)
            _log_points(record.client, record.run_id, number, metrics, repeated, ended)
            for path in artifacts:
                record.client.log_artifact(child, str(path))
            log_figures(record.client, record.run_id, number, artifacts, ended)
            log_description(record.client, record.run_id, self._folder)
            _terminate(record.client, child, "FINISHED", ended)
            self._remember(rounds=number)

    def attach(self, path: Path) -> None:
        """Log a file with the parent run; one of the same name is replaced."""
        with self._answering():
            record = self._record()
            record.client.log_artifact(record.run_id, str(path))

    def register(self, path: Path) -> None:
        """Log and register a model that `mlflow_models.save_model` wrote; a second call adds nothing."""
        with self._answering():
            record = self._record()
            register_model(record.client, record.experiment_id, record.run_id, path)
            self._remember(models=True)

    def finish(self, status: Status) -> None:
        """End the run; a warning if MLflow does not answer. Does nothing before `start`."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        if self._started is None:
            return
        try:
            with self._answering():
                log_description(self._started.client, self._started.run_id, self._folder)
                span = None if self._live else self._last_span()
                _terminate(self._started.client, self._started.run_id, status, span and _milliseconds(span[1]))
                self._remember(ended=status)
        except TrackingError as error:
            logger.warning("MLflow did not record the end of the run: %s (%s)", error.message, error.hint)

    def compare_url(self, ui: str) -> str:
        """The page of MLflow's user interface that compares the measured rounds; all if none was measured.

        The page shows the first number that all rounds have in common, which is `rank1`. `ui` is the address, such as
        `http://127.0.0.1:5000`; ignored if a server records the run.
        """
        record = self._record()
        rows = self._folder.read_metrics()
        headline = headline_of(rows)
        measured = {int(row["round"]) for row in rows if row.get(f"{headline}/r1") is not None}
        numbers = sorted(measured & record.rounds.keys()) or sorted(record.rounds)
        query = (("runs", [record.rounds[one] for one in numbers]), ("experiments", [record.experiment_id]))
        parts = [f"{name}={quote(json.dumps(value))}" for name, value in query]
        return f"{self._ui(ui)}/#/compare-runs?" + "&".join([*parts, MODEL_TRAINING])

    def run_url(self, ui: str) -> str:
        """The run's page of MLflow's user interface; `ui` as for `compare_url`."""
        record = self._record()
        return f"{self._ui(ui)}/#/experiments/{record.experiment_id}/runs/{record.run_id}?{MODEL_TRAINING}"

    def table_url(self, ui: str) -> str:
        """The table of runs in MLflow's user interface; `ui` as for `compare_url`."""
        return runs_page(self._ui(ui), self._record().experiment_id)

    def _ui(self, ui: str) -> str:
        return clickable(self.uri).rstrip("/") if self.uri.startswith("http") else ui

    def _record(self) -> _Record:
        assert self._started is not None, "the tracker was not started"
        return self._started

    def _answering(self, way_on: str | None = None) -> contextlib.AbstractContextManager[None]:
        sync = f"`vireid runs sync {shlex.quote(str(self._folder.path))}` sends what is missing"
        return answering(self.uri, self._runs, "record this run", way_on or sync)

    def _last_span(self, *, first: bool = False) -> Span | None:
        """When the last round, or the `first` one, began and ended."""
        rows = self._folder.read_timings()
        return span_of(rows[0 if first else -1]) if rows else None

    def _log_sample(self, numbers: Numbers) -> None:
        """Record measurements of the machine; the step is the time in s since the run was created."""
        with self._answering():
            record = self._record()
            _log_points(record.client, record.run_id, int(time.time() - record.began), numbers, repeated=False)

    def _remember(self, *, rounds: int = 0, models: bool = False, ended: Status | None = None) -> None:
        with self._notes:  # rounds may be recorded from several threads
            note = read_note(self._folder.path)
            assert note is not None, "a record that was started has a note"
            changed = replace(
                note,
                rounds=max(rounds, note.rounds),
                models=models or note.models,
                form=MODELS_FORM if models else note.form,
                ended=ended or note.ended,
            )
            if changed != note:
                write_note(self._folder.path, changed)

    def _found(self, client: MlflowClient) -> _Record | None:
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
            logger.warning("MLflow at %s no longer has run %s: a new one is created", masked(self.uri), run_id)
            return None
        remove_left_uploads(str(run.info.artifact_uri))
        client.update_run(run_id, status="RUNNING")
        write_note(self._folder.path, replace(note, ended=None))
        experiment_id = run.info.experiment_id
        return _Record(
            client, experiment_id, run_id, run.info.start_time / 1000, _find_rounds(client, experiment_id, run_id)
        )

    def _experiment(self, client: MlflowClient) -> str:
        """The identifier of the experiment, which is created, or restored, if it has to be."""
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            file = sqlite_file(self.uri)  # MLflow's default folder is the working directory
            try:
                location = None if file is None else artifact_location(file)
                return str(client.create_experiment(EXPERIMENT, artifact_location=location))
            except MlflowException as error:
                experiment = client.get_experiment_by_name(EXPERIMENT)  # created by another run meanwhile
                if experiment is None:
                    raise error from error.__cause__
        number = str(experiment.experiment_id)
        if experiment.lifecycle_stage != "active":
            try:
                client.restore_experiment(number)
            except MlflowException as error:
                hint = f"restore it: `{restore_command(self.uri, 'experiment', number)}`"
                raise StoreError(f"its experiment {EXPERIMENT} (number {number}) was deleted", hint) from error
            logger.warning("MLflow's experiment %s (%s) was deleted: restored, with its runs", EXPERIMENT, number)
        return number

    def _created(self, client: MlflowClient, experiment_id: str) -> _Record:
        """A new run; or one that a killed process created for this folder without a note of it."""
        name, digest = self._folder.path.name, self._folder.digest
        tags = {_DIGEST_TAG: digest, **dict.fromkeys(marks_of(self._folder.config), "true")}
        open_runs = client.search_runs(
            [experiment_id], f"tags.`{_DIGEST_TAG}` = '{digest}' and attributes.status = 'RUNNING'"
        )
        # Parameters are logged after the note is written.
        unnoted = [run for run in open_runs if run.info.run_name == name and not run.data.params]
        if unnoted:
            run = unnoted[0]
        else:
            span, tags = self._last_span(first=True), tags | source_tags(self._folder)
            run = client.create_run(experiment_id, span and _milliseconds(span[0]), tags=tags, run_name=name)
        if is_measured(self._folder):
            # Pages begin with the numbers that were logged first; until the first evaluation they are gaps.
            first = dict.fromkeys(HEADLINE_NAMES, math.nan)
            _log_points(client, run.info.run_id, 0, first, repeated=bool(unnoted))
        default = self.uri == default_uri(self._runs)
        write_note(self._folder.path, TrackingNote(run.info.run_id, store=None if default else masked(self.uri)))
        return _Record(client, experiment_id, run.info.run_id, run.info.start_time / 1000)


def has_run(runs_folder: Path, note: TrackingNote) -> bool:
    """Whether the SQLite file that recorded a run still has it; true where another store recorded it."""
    uri = tracking_uri(runs_folder)
    if not uri.startswith("sqlite") or (note.store or default_uri(runs_folder)) != masked(uri):
        return True
    with answering(uri, runs_folder):
        file = sqlite_file(uri)
        if file is None or not file.exists():
            return False
        try:
            _readable(uri).get_run(note.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
    return True


@cache
def _readable(uri: str) -> MlflowClient:
    """A client of a file that was checked; once, for all runs of a folder."""
    check(uri, writing=False)
    return MlflowClient(tracking_uri=uri)


def _milliseconds(seconds: float) -> int:
    return int(1000 * seconds)


def _create_round(record: _Record, number: int, began: int | None) -> str:
    tags = {MLFLOW_PARENT_RUN_ID: record.run_id, _ROUND_TAG: str(number)}
    run = record.client.create_run(record.experiment_id, began, tags=tags, run_name=f"round-{number:03d}")
    return str(run.info.run_id)


def _find_rounds(client: MlflowClient, experiment_id: str, parent: str) -> dict[int, str]:
    children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    found = client.search_runs([experiment_id], children, max_results=10_000)
    for child in found:
        remove_left_uploads(str(child.info.artifact_uri))
    return {int(child.data.tags[_ROUND_TAG]): child.info.run_id for child in found}


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Log flat parameters as strings; known ones are skipped, since MLflow refuses a second value."""
    known = client.get_run(run_id).data.params
    new = [Param(name, _text(value)) for name, value in flat(params) if name not in known]
    for first in range(0, len(new), _MAX_PARAMS):
        client.log_batch(run_id, params=new[first : first + _MAX_PARAMS])


def _log_points(
    client: MlflowClient, run_id: str, step: int, metrics: Numbers, repeated: bool, at: int | None = None
) -> None:
    """Log one value per metric, at a time in ms or now; of a repeated round, only missing or changed ones."""
    now = at or time.time_ns() // 1_000_000
    # Stores replace infinity by the largest number, which spoils charts; NaN is shown as a gap.
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


def _terminate(client: MlflowClient, run_id: str, status: Status, at: int | None = None) -> None:
    """End a run at a time in ms or now, whether or not it has ended before."""
    # With a server MLflow prints the address of each ended run, with its password, to stdout, which is for results.
    with contextlib.redirect_stdout(StringIO()) as printed:
        client.set_terminated(run_id, status, at)
    sys.stderr.write(clickable(printed.getvalue()))
