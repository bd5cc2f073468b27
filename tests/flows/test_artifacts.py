"""What a deployed run shows in Prefect: progress of what lasts, the table of rounds, errors with their hints."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest

from flows import artifacts as reporting
from flows.artifacts import is_reported, reported, show_error, show_rounds
from pipeline.console import progress
from pipeline.errors import DataError
from pipeline.runs.run import Run
from pipeline.tracking.tracker import SilentTracker
from tests.pipeline.reports.test_round_table import SUPERVISED


class Pages:
    """Prefect's artifacts, in memory, and a clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.markdown: list[tuple[str, str, str]] = []
        self.progress: dict[UUID, list[tuple[float, str]]] = {}
        self.keys: list[str] = []

    def create_markdown(self, markdown: str, *, key: str, description: str) -> None:
        self.markdown.append((key, description, markdown))

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
    monkeypatch.setattr(reporting, "create_progress_artifact", kept.create_progress)
    monkeypatch.setattr(reporting, "update_progress_artifact", kept.update_progress)
    monkeypatch.setattr(time, "monotonic", lambda: kept.seconds)
    return kept


def work(pages: Pages, description: str, items: int, seconds_each: float) -> None:
    """Go through a progress bar; each item takes its time."""
    for _ in progress(range(items), description):
        pages.seconds += seconds_each


def run(tracker: object) -> Run[Any, Any]:
    """Two finished rounds of three, as far as the table of rounds asks."""
    timings = [{"seconds/total": 3.0}, {"seconds/total": 4.0}]
    rows = [SUPERVISED, SUPERVISED | {"round": 2, "test/sysu/all/map": 0.5}]
    return cast(
        "Run[Any, Any]",
        SimpleNamespace(
            state=SimpleNamespace(metrics=rows, timings=timings, completed=2),
            record=SimpleNamespace(folder=SimpleNamespace(path="runs/csdn-s1"), tracker=tracker),
            rounds=(1, 2, 3),
            config=SimpleNamespace(name="csdn", seed=1),
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


def test_the_table_of_rounds_links_to_mlflow(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    ui = "http://127.0.0.1:5005"
    monkeypatch.setenv("VIREID_MLFLOW_UI", ui)
    urls = {f"{page}_url": (lambda ui, page=page: f"{ui}/#/{page}") for page in ("run", "table", "compare")}
    tracker = SimpleNamespace(**urls)
    with reported():
        show_rounds(run(tracker))
    ((key, title, text),) = pages.markdown
    assert (key, title) == ("rounds", "2 of 3 rounds of csdn, seed 1")
    assert text.splitlines() == [
        "Run folder: `runs/csdn-s1`",
        "",
        "| round | stage | loss | Rank-1 | mAP | seconds |",
        "|---:|---:|---:|---:|---:|---:|",
        "| 1 | image | 2.500 | 50.00 | 40.00 | 3.0 |",
        "| 2 | image | 2.500 | 50.00 | 50.00 | 4.0 |",
        "",
        f"In MLflow: [this run]({ui}/#/run), [all runs]({ui}/#/table), [rounds side by side]({ui}/#/compare)",
    ]


def test_a_run_that_is_not_tracked_has_the_table_without_links(pages: Pages) -> None:
    with reported():
        show_rounds(run(SilentTracker()))
    assert "| 2 | image |" in pages.markdown[0][2] and "MLflow" not in pages.markdown[0][2]


def test_an_error_is_shown_with_its_kind_and_its_hint(pages: Pages) -> None:
    show_error(DataError("3 images are missing", hint="unpack the archive again"))
    text = "**DataError**: 3 images are missing\n\n**Hint**: unpack the archive again"
    assert pages.markdown == [("error", "3 images are missing", text)]


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
        ("create_markdown_artifact", lambda _: show_error(DataError("wrong", hint="right"))),
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
