"""`vireid runs`: a row a run, a line for whatever is none."""

import json
import socket
from pathlib import Path

import pytest

from pipeline.tracking.replay import TrackingNote, read_note, write_note
from tests.flows.command_line import Call
from tests.pipeline.reports.recorded_runs import begin_run, make_run, row


def test_every_run_is_a_row_and_what_is_none_is_a_line(vireid: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    (make_run(tmp_path / "notes", [row(1)]) / "config.json").unlink()
    (tmp_path / "server").mkdir()
    with begin_run(tmp_path / "busy", [row(1)]):
        code, out, err = vireid("runs", "--runs", str(tmp_path))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    (done,) = (line for line in lines if "done" in line)
    # The last round's numbers, then those of the best round and its number.
    assert [cell.strip() for cell in done.split("│")][6:13] == [
        "2 of 2",
        "finished",
        "37.50",
        "75.00",
        "50.00",
        "25.00",
        "1",
    ]
    (busy,) = (line for line in lines if "busy" in line)
    assert "running" in busy and "1 of 2" in busy
    assert "selected on the test set" in out
    assert [line for line in lines if "skipped" in line] == [f"skipped: {tmp_path / 'notes'} holds no run"]


def test_programs_get_json(vireid: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    (make_run(tmp_path / "notes", [row(1)]) / "config.json").unlink()
    code, out, _ = vireid("runs", "--runs", str(tmp_path), "--json")
    assert code == 0
    answer = json.loads(out)
    assert [run["state"] for run in answer["runs"]] == ["finished"]
    assert answer["not_runs"] == [f"{tmp_path / 'notes'} holds no run"]


def test_an_empty_folder_has_no_runs_and_an_absent_one_is_an_error(vireid: Call, tmp_path: Path) -> None:
    code, out, _ = vireid("runs", "--runs", str(tmp_path))
    assert code == 0 and "no runs in" in out
    code, out, err = vireid("runs", "--runs", str(tmp_path / "absent"))
    assert (code, out) == (1, "")
    assert "absent" in err and "hint:" in err


def test_what_mlflow_missed_is_handed_over(vireid: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    code, out, _ = vireid("runs", "sync", "--runs", str(tmp_path))
    assert (code, out) == (0, f"no run in {tmp_path} has an incomplete MLflow record\n")
    code, out, _ = vireid("runs", "sync", str(done))
    assert (code, out) == (0, f"{done}: 2 of 2 rounds in MLflow\n")
    write_note(done, TrackingNote(read_note(done).run_id))
    code, out, _ = vireid("runs", "sync", "--runs", str(tmp_path), "--json")
    assert code == 0
    assert json.loads(out) == {"runs": [{"run": str(done), "rounds": 2, "planned": 2}]}


def test_a_server_that_is_away_and_a_folder_without_a_run_are_errors(
    vireid: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = make_run(tmp_path / "done", [row(1), row(2)])
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    code, out, err = vireid("runs", "sync", str(done))
    assert (code, out) == (1, "")
    assert "Connection refused" in err and "hint: the run folder is intact" in err
    code, _, err = vireid("runs", "sync", str(tmp_path / "absent"))
    assert code == 1 and "holds no run" in err
