"""Prefect artifacts of a deployed run: progress of long stages, table of rounds with MLflow links, error with hint."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError

from pipeline.config.experiment import marks_of, record_of
from pipeline.console import enable_logging, watched_by
from pipeline.errors import VireidError
from pipeline.reports import round_table
from pipeline.runs.record import ui_address
from pipeline.runs.run import Run
from pipeline.secrets import mask_handlers, masked

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""Interval of progress reports; a shorter stage reports none."""

_REPORTING: ContextVar[bool] = ContextVar("reporting", default=False)
_UNREACHABLE = (httpx.TransportError, PrefectHTTPStatusError)


@contextmanager
def reported() -> Iterator[None]:
    """Publish artifacts of the run in the `with` block; runs at a terminal do not use it."""
    enable_logging()
    mask_handlers("prefect", "prefect.flow_runs", "prefect.task_runs")
    token = _REPORTING.set(True)
    try:
        with watched_by(_ProgressArtifacts()):
            yield
    finally:
        _REPORTING.reset(token)


def is_reported() -> bool:
    """Whether this run publishes artifacts."""
    return _REPORTING.get()


def show_rounds(run: Run[Any, Any]) -> None:
    """Publish the table of all finished rounds with MLflow links; nothing for a run at a terminal."""
    if not is_reported():
        return
    rows, seconds = run.state.metrics, [timing["seconds/total"] for timing in run.state.timings]
    table = round_table.markdown(rows, seconds, run.evaluator.headline_search)
    parts = [f"Run folder: `{run.record.folder.path}`", table]
    tracker = run.record.tracker
    pages = {"this run": tracker.run_url, "all runs": tracker.table_url, "rounds side by side": tracker.compare_url}
    links = [f"[{name}]({url})" for name, page in pages.items() if (url := page(ui_address())) is not None]
    if links:
        parts.append("In MLflow: " + ", ".join(links))
    title = f"{run.state.completed} of {len(run.rounds)} rounds of {run.config.name}, seed {run.config.seed}"
    _publish("rounds", "\n\n".join(parts), ", ".join((title, *marks_of(record_of(run.config)))))


def show_error(error: VireidError) -> None:
    """Publish an error and its hint."""
    _publish("error", f"**{type(error).__name__}**: {error.message}\n\n**Hint**: {error.hint}", error.message)


def _publish(key: str, markdown: str, description: str) -> None:
    """Create an artifact; if the server does not answer, log a warning, since an artifact must not end a run."""
    try:
        create_markdown_artifact(masked(markdown), key=key, description=masked(description))
    except _UNREACHABLE as error:
        logger.warning("Prefect did not take the artifact %r: %s", key, error)


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
