"""`vireid look`, and the end of a run that cannot be measured."""

import csv
import json
from pathlib import Path

import pytest

from flows.cli.printing import print_result
from pipeline.config.cclnet import CclnetConfig
from pipeline.runs.open import run_path
from tests.flows.command_line import Call


def test_the_page_the_table_and_json_agree(vireid: Call, finished_run: CclnetConfig, tmp_path: Path) -> None:
    run, page, table = run_path(finished_run), tmp_path / "look.html", tmp_path / "pairs.csv"
    code, out, err = vireid("look", str(run), "--html", str(page), "--csv", str(table), "--json")
    assert code == 0 and f"page: {page}" in err
    found = json.loads(out)
    assert (found["round"], found["synthetic"], found["images_missing"]) == (4, True, 0)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["visible"]) for row in rows] == [pair["visible"] for pair in found["pairs"]]
    assert page.read_text().startswith("<!DOCTYPE html>")
    code, out, _ = vireid("look", str(run), "--html", str(page), "--csv", str(table), "--round", "2")
    assert code == 0, "what it wrote itself is replaced"
    assert "synthetic" in out and "mutual" in out and "join two people" in out


def test_what_cannot_be_shown_is_one_error_and_no_page(
    vireid: Call, finished_run: CclnetConfig, tmp_path: Path
) -> None:
    page = tmp_path / "look.html"
    for arguments, words in (
        ([str(run_path(finished_run)), "--round", "9"], "has no round 9"),
        ([str(tmp_path)], "holds no run"),
    ):
        code, out, err = vireid("look", *arguments, "--html", str(page))
        assert (code, out) == (1, "") and words in err and "hint:" in err and "Traceback" not in err
    assert not page.exists()


def test_a_run_without_test_people_ends_with_its_quality_and_the_command_of_the_page(
    finished_run: CclnetConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(finished_run, None, False)
    streams = capsys.readouterr()
    assert "not evaluated" not in streams.out
    assert "quality without identities, round 4" in streams.out and "These numbers need no identities" in streams.out
    assert f"vireid look {run_path(finished_run)}" in " ".join(streams.err.split())
    print_result(finished_run, None, True)
    assert set(json.loads(capsys.readouterr().out)) == {"quality"}
