"""What a deployed run shows in Prefect: progress of long stages, links, table of rounds, result, error with hint."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import FailedRun, PrefectHTTPStatusError

from pipeline.config.experiment import marks_of, record_of
from pipeline.console import enable_logging, watched_by
from pipeline.errors import VireidError
from pipeline.evaluation.report import EvaluationReport
from pipeline.reports import round_table
from pipeline.reports.result_table import report_markdown
from pipeline.runs.record import ui_address
from pipeline.runs.run import Run
from pipeline.secrets import mask_handlers, masked

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""Interval of progress reports; a shorter stage reports none."""

_UNREACHABLE = (httpx.TransportError, PrefectHTTPStatusError)
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


@dataclass(slots=True)
class _Published:
    """The artifact with the table of rounds, which later rounds update."""

    rounds: UUID | None = None


_PUBLISHED: ContextVar[_Published | None] = ContextVar("published", default=None)


@contextmanager
def reported() -> Iterator[None]:
    """Publish artifacts of the run in the `with` block; runs at a terminal do not use it."""
    enable_logging()
    mask_handlers("prefect", *_LOGGERS)
    for name in _LOGGERS:
        prefect_logger = logging.getLogger(name)
        if not any(isinstance(one, _WithoutTrace) for one in prefect_logger.filters):
            prefect_logger.addFilter(_WithoutTrace())
    token = _PUBLISHED.set(_Published())
    try:
        with watched_by(_ProgressArtifacts()):
            yield
    finally:
        _PUBLISHED.reset(token)


def is_reported() -> bool:
    """Whether this run publishes artifacts."""
    return _PUBLISHED.get() is not None


def show_rounds(run: Run[Any, Any]) -> None:
    """Publish links to MLflow once, and the table of all finished rounds; nothing for a run at a terminal."""
    published = _PUBLISHED.get()
    if published is None:
        return
    name = run.record.folder.path.name
    rows, seconds = run.state.metrics, [timing["seconds/total"] for timing in run.state.timings]
    table = round_table.markdown(rows, seconds, run.evaluator.headline_search)
    markdown = masked(f"Run folder: `{run.record.folder.path}`\n\n{table}")
    title = f"{run.state.completed} of {len(run.rounds)} rounds of {run.config.name}, seed {run.config.seed}"
    title = masked(", ".join((title, *marks_of(record_of(run.config)))))
    if published.rounds is None:
        tracker, ui = run.record.tracker, ui_address()
        _link(_key("mlflow-run", name), tracker.run_url(ui), "the run in MLflow", name)
        _link(_key("mlflow-runs", name), tracker.table_url(ui), "all runs in MLflow", name)
        _link(_key("mlflow-rounds", name), tracker.compare_url(ui), "its rounds side by side in MLflow", name)
        published.rounds = _publish(_key("rounds", name), markdown, title)
    else:
        changed = ArtifactUpdate(data=markdown, description=title)
        _sent(lambda: _update(published.rounds, changed))


def show_result(report: EvaluationReport, name: str) -> None:
    """Publish the result of the run in folder `name`; nothing for a run at a terminal."""
    if is_reported():
        _publish(_key("result", name), report_markdown(report), f"result of {name}")


def show_features(summary: str, file: Path) -> None:
    """Publish what a file of features contains; nothing for a run at a terminal."""
    if is_reported():
        _publish(_key("features", file.name), f"`{file}`: {summary}", f"features in {file.name}")


def show_error(error: VireidError, name: str) -> None:
    """Publish an error and its hint; `name` is that of the flow run."""
    markdown = f"**{type(error).__name__}**: {error.message}\n\n**Hint**: {error.hint}"
    _publish(_key("error", name), markdown, error.message)


def _key(kind: str, name: str) -> str:
    """A key of one run, with the signs that Prefect accepts.

    >>> _key("rounds", "my.own_run-s1")
    'rounds-my-own-run-s1'
    """
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


def _publish(key: str, markdown: str, description: str) -> UUID | None:
    """Create an artifact."""
    return _sent(lambda: create_markdown_artifact(masked(markdown), key=key, description=masked(description)))


def _link(key: str, url: str | None, text: str, description: str) -> None:
    if url is not None:
        _sent(lambda: create_link_artifact(url, text, key=key, description=description))


def _update(artifact: UUID | None, changed: ArtifactUpdate) -> None:
    assert artifact is not None, "the table was published"
    with get_client(sync_client=True) as client:
        client.update_artifact(artifact, changed)


def _sent(send: Callable[[], Any]) -> UUID | None:
    """The new artifact; if the server does not answer, log a warning, since an artifact must not end a run."""
    try:
        created = send()
    except _UNREACHABLE as error:
        logger.warning("Prefect did not take an artifact: %s", error)
        return None
    return created if isinstance(created, UUID) else None


class _WithoutTrace(logging.Filter):
    """Makes Prefect log an error with a hint as that, without a stack trace.

    `FailedRun` is what Prefect makes of a state Failed that a flow returns.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (VireidError, FailedRun)):
            text = f"{error.message}\nhint: {error.hint}" if isinstance(error, VireidError) else str(error)
            record.msg, record.args, record.exc_info = text, (), None
        return True


class _ProgressArtifacts:
    """Publishes progress bars: an artifact for each long one, updated every `PATIENCE_SECONDS`."""

    def __init__(self) -> None:
        self._description = ""
        self._published = 0.0
        self._done = 0
        self._artifact: UUID | None = None

    def __call__(self, description: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if description != self._description or done <= self._done:
            self._description, self._published, self._artifact = description, now, None
        self._done = done
        ends = self._artifact is not None and done == total
        if total and (ends or now - self._published >= PATIENCE_SECONDS):
            self._published = now
            self._publish(100.0 * done / total, f"{description}: {done:,} of {total:,}")

    def _publish(self, percent: float, text: str) -> None:
        try:
            if self._artifact is None:
                key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self._description.lower()).strip("-")
                created = create_progress_artifact(percent, key=key, description=text)
                assert isinstance(created, UUID), "synchronous call"
                self._artifact = created
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except _UNREACHABLE as error:
            logger.warning("Prefect did not take the progress of %r: %s", self._description, error)
