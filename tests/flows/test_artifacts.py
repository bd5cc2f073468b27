"""What a deployed run shows in Prefect: progress of what lasts, the table of rounds, errors with their hints."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import FailedRun

from flows import artifacts as reporting
from flows.artifacts import is_reported, reported, show_error, show_result, show_rounds
from pipeline.config.presets import load_config
from pipeline.console import progress
from pipeline.errors import DataError
from pipeline.evaluation.report import DataRecord
from pipeline.runs.run import Run
from pipeline.tracking.tracker import SilentTracker
from tests.pipeline.reports.test_result_table import report
from tests.pipeline.reports.test_round_table import SUPERVISED


class Pages:
    """Prefect's artifacts, in memory, and a clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.markdown: list[tuple[str, str, str]] = []
        self.progress: dict[UUID, list[tuple[float, str]]] = {}
        self.keys: list[str] = []
        self.links: list[tuple[str, str, str]] = []

    def create_markdown(self, markdown: str, *, key: str, description: str) -> UUID:
        self.markdown.append((key, description, markdown))
        self.table = uuid4()
        return self.table

    def update(self, page: UUID, changed: ArtifactUpdate) -> None:
        assert page == self.table
        key = self.markdown[-1][0]
        self.markdown[-1] = (key, str(changed.description), str(changed.data))

    def create_link(self, link: str, text: str, *, key: str, description: str) -> UUID:
        assert description == "csdn-s1"
        self.links.append((key, link, text))
        return uuid4()

    def create_progress(self, percent: float, *, key: str, description: str) -> UUID:
        self.keys.append(key)
        page = uuid4()
        self.progress[page] = [(percent, description)]
        return page

    def update_progress(self, page: UUID, percent: float, *, description: str) -> None:
        self.progress[page].append((percent, description))


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    kept = Pages()
    monkeypatch.setattr(reporting, "create_markdown_artifact", kept.create_markdown)
    monkeypatch.setattr(reporting, "create_link_artifact", kept.create_link)
    monkeypatch.setattr(reporting, "_update", kept.update)
    monkeypatch.setattr(reporting, "create_progress_artifact", kept.create_progress)
    monkeypatch.setattr(reporting, "update_progress_artifact", kept.update_progress)
    monkeypatch.setattr(time, "monotonic", lambda: kept.seconds)
    return kept


def work(pages: Pages, description: str, items: int, seconds_each: float) -> None:
    """Go through a progress bar; each item takes its time."""
    for _ in progress(range(items), description):
        pages.seconds += seconds_each


def run(tracker: object, completed: int = 2) -> Run[Any, Any]:
    """Two finished rounds of three, as far as the table of rounds asks."""
    timings = [{"seconds/total": 3.0}, {"seconds/total": 4.0}]
    rows = [SUPERVISED, SUPERVISED | {"round": 2, "test/sysu/all/map": 0.5}]
    return cast(
        "Run[Any, Any]",
        SimpleNamespace(
            state=SimpleNamespace(metrics=rows[:completed], timings=timings[:completed], completed=completed),
            record=SimpleNamespace(folder=SimpleNamespace(path=Path("runs/csdn-s1")), tracker=tracker),
            rounds=(1, 2, 3),
            config=load_config("csdn-demo", ("name=csdn",)),
            evaluator=SimpleNamespace(headline_search="sysu/all"),
        ),
    )


def test_a_stage_that_lasts_has_one_page_that_ends_at_its_end(pages: Pages) -> None:
    with reported():
        work(pages, "encode visible", items=5, seconds_each=6.0)
    # The first is done at 6 s, from where the patience counts. 12 s: too early. 18 s: a page. 24 s: too early to tell
    # again. 30 s: the end is always told.
    (told,) = pages.progress.values()
    assert told == [(60.0, "encode visible: 3 of 5"), (100.0, "encode visible: 5 of 5")]
    assert pages.keys == ["progress-encode-visible"]


def test_a_stage_that_is_over_before_anybody_looks_has_none(pages: Pages) -> None:
    with reported():
        work(pages, "encode visible", items=9, seconds_each=1.0)
    assert pages.progress == {}


def test_the_same_stage_of_the_next_round_has_a_page_of_its_own(pages: Pages) -> None:
    with reported():
        for _ in range(2):
            work(pages, "encode visible", items=2, seconds_each=20.0)
    assert [told[-1][0] for told in pages.progress.values()] == [100.0, 100.0]


def test_a_run_at_a_terminal_reports_nothing(pages: Pages) -> None:
    assert not is_reported()
    work(pages, "encode visible", items=5, seconds_each=60.0)
    show_rounds(run(SilentTracker()))
    assert pages.progress == {} and pages.markdown == []
    with reported():
        assert is_reported()
    assert not is_reported()


def test_the_table_of_rounds_is_one_page_that_is_updated_beside_links_to_mlflow(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIREID_MLFLOW_UI", "http://127.0.0.1:5005")
    tracker = SimpleNamespace(
        run_url=lambda ui: f"{ui}/#/run",
        compare_url=lambda ui: f"{ui}/#/compare",
        table_url=lambda ui: f"{ui}/#/table",
    )
    with reported():
        show_rounds(run(tracker, completed=1))
        show_rounds(run(tracker))
    ((key, title, text),) = pages.markdown
    assert (key, title) == ("rounds-csdn-s1", "2 of 3 rounds of csdn, seed 1")
    assert text.splitlines() == [
        "Run folder: `runs/csdn-s1`",
        "",
        "| round | stage | loss | Rank-1 | mAP | sec |",
        "|---:|---:|---:|---:|---:|---:|",
        "| 1 | image | 2.500 | 50.00 | 40.00 | 3.0 |",
        "| 2 | image | 2.500 | 50.00 | 50.00 | 4.0 |",
    ]
    assert pages.links == [
        ("mlflow-run-csdn-s1", "http://127.0.0.1:5005/#/run", "the run in MLflow"),
        ("mlflow-runs-csdn-s1", "http://127.0.0.1:5005/#/table", "all runs in MLflow"),
        ("mlflow-rounds-csdn-s1", "http://127.0.0.1:5005/#/compare", "its rounds side by side in MLflow"),
    ]


def test_the_result_names_what_its_numbers_depend_on(pages: Pages) -> None:
    data = DataRecord("sysu-mm01", "drawn", "train", None, False, False, "sha256:00", 20, 10)
    result = report(("sysu/all/1-shot/agw",), 0.5, data, "last")
    show_result(result, "a_run")
    assert pages.markdown == [], "a run at a terminal prints it"
    with reported():
        show_result(result, "a_run")
    ((key, _, text),) = pages.markdown
    assert key == "result-a-run"
    assert text.startswith("SYSU-MM01 (synthetic images), the last round (round 2), weights openai, seed 1; percent.")
    assert "| sysu/all/1-shot/agw | infrared to visible | 50.00 | 50.00 | 50.00 | 25.00 | 12.50 |" in text


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.task_runs", "prefect.engine"])
def test_prefect_logs_an_error_with_a_hint_without_a_trace(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger(name)
    caplog.set_level(logging.ERROR, logger=name)  # another test may have silenced it
    monkeypatch.setattr(logger, "disabled", False)
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        with reported():
            hinted = DataError("3 images are missing", hint="unpack again")
            for error in (hinted, FailedRun("3 images are missing\nhint: unpack again"), KeyError("ours")):
                try:
                    raise error
                except (DataError, FailedRun, KeyError):
                    logger.exception("Encountered exception during execution: %r", error)
    finally:
        logger.removeHandler(handler)
    *theirs, ours = records
    for record in theirs:
        assert record.getMessage() == "3 images are missing\nhint: unpack again" and record.exc_info is None
    assert "KeyError" in ours.getMessage() and ours.exc_info is not None


def test_a_run_that_is_not_tracked_has_the_table_without_links(pages: Pages) -> None:
    with reported():
        show_rounds(run(SilentTracker()))
    assert "| 2 | image |" in pages.markdown[0][2] and pages.links == []


def test_an_error_is_shown_with_its_kind_and_its_hint(pages: Pages) -> None:
    show_error(DataError("3 images are missing", hint="unpack the archive again"), "csdn_1")
    text = "**DataError**: 3 images are missing\n\n**Hint**: unpack the archive again"
    assert pages.markdown == [("error-csdn-1", "3 images are missing", text)]


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    def refuse(*arguments: object, **options: object) -> None:
        raise httpx.ConnectError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(reporting, name, refuse)
        yield


@pytest.mark.parametrize(
    ("function", "tell"),
    [
        ("create_markdown_artifact", lambda _: show_error(DataError("wrong", hint="right"), "a")),
        ("create_progress_artifact", lambda pages: work(pages, "encode visible", 3, 20.0)),
    ],
)
def test_a_server_that_is_gone_costs_the_page_and_not_the_run(
    function: str,
    tell: Callable[[Pages], None],
    pages: Pages,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with refusing(monkeypatch, function), reported():
        tell(pages)
    assert "Prefect" in caplog.text and "gone" in caplog.text
