"""`vireid compare`: tables on stdout, one page, clear errors."""

import json
from pathlib import Path

import pytest

from tests.flows.command_line import Call
from tests.pipeline.reports.recorded_runs import make_run, row


@pytest.fixture
def two_runs(tmp_path: Path) -> list[str]:
    first = make_run(tmp_path / "first", [row(1, 0.5, 0.25), row(2, 0.375, 0.125)])
    second = make_run(tmp_path / "second", [row(1, 0.0625, 0.75)], "swap.mode=off")
    return [str(first), str(second)]


def test_rounds_stand_side_by_side_and_the_page_is_written(vireid: Call, tmp_path: Path, two_runs: list[str]) -> None:
    page = tmp_path / "page.html"
    code, out, err = vireid("compare", *two_runs, "--html", str(page))
    assert code == 0
    cells = [[cell.strip() for cell in line.split("│")][1:-1] for line in out.splitlines() if "│" in line]
    # Round; Rank-1 of A and B; mAP; loss; seconds.
    assert ["1", "50.00", "6.25", "25.00", "75.00", "1.000", "1.000", "2.5", "2.5"] in cells
    assert ["2", "37.50", "", "12.50", "", "1.000", "", "2.5", ""] in cells
    assert ["swap.mode", "released", "off"] in cells
    assert f"page: {page}" in err
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_programs_get_json(vireid: Call, tmp_path: Path, two_runs: list[str]) -> None:
    metric = "test/sysu/indoor/1-shot/agw/r1"
    options = ("--html", str(tmp_path / "page.html"), "--metric", metric, "--json")
    code, out, _ = vireid("compare", *two_runs, *options)
    assert code == 0
    answer = json.loads(out)
    assert answer["differences"] == [{"setting": "swap.mode", "values": ["released", "off"]}]
    assert answer["rounds"][1]["Rank-1"] == [0.375, None]
    assert answer["rounds"][0][metric] == [0.9, 0.9]


def test_a_run_that_is_named_twice_is_one_run(vireid: Call, tmp_path: Path, two_runs: list[str]) -> None:
    first, second = two_runs
    _, out, _ = vireid("compare", first, second, f"{first}/", "--html", str(tmp_path / "page.html"), "--json")
    assert [run["run"] for run in json.loads(out)["runs"]] == [first, second]


def test_the_page_lies_in_the_working_folder_unless_named(
    vireid: Call, tmp_path: Path, two_runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vireid("compare", *two_runs)[0] == 0
    assert (tmp_path / "comparison.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no run to compare"),
        (("absent",), "absent holds no run"),
        (("empty",), "no finished round"),
        (("first", "--metric", "nothing"), "no run has a metric 'nothing'"),
        (("first", "--html", "first/metrics.jsonl"), "does not contain a page"),
        (("first", "--html", "first/metrics.jsonl/page.html"), "is a file"),
    ],
)
def test_what_cannot_be_compared_is_one_error_with_a_hint(
    vireid: Call,
    tmp_path: Path,
    two_runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    make_run(tmp_path / "empty", [])
    monkeypatch.chdir(tmp_path)
    code, out, err = vireid("compare", *arguments)
    assert (code, out) == (1, "")
    assert message in err and "hint:" in err and "Traceback" not in err
    assert not (tmp_path / "comparison.html").exists()
