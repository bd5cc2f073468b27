"""`vireid runs`: a row a run, a line for whatever is none."""

import json
import socket
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.runs import print_runs
from pipeline.storage.run_reader import read_run
from pipeline.tracking.replay import TrackingNote, read_note, write_note
from tests.flows.command_line import Call
from tests.pipeline.reports.recorded_runs import begin_run, make_run, row


def test_every_run_is_a_row_and_what_is_none_is_a_line(vireid: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    (make_run(tmp_path / "notes", [row(1)]) / "config.json").unlink()
    (tmp_path / "server").mkdir()
    for name in ("password", "prefect.log", "mlflow.log", "worker.log"):
        (tmp_path / "server" / name).touch()
    with begin_run(tmp_path / "busy", [row(1)]):
        code, out, err = vireid("runs", "--runs", str(tmp_path))
        long = vireid("runs", "--runs", str(tmp_path), "--long")[1]
    assert (code, err) == (0, "")
    lines = out.splitlines()
    (done,) = (line.split() for line in lines if line.startswith("done"))
    assert done == ["done", "sysu", "2/2", "finished", "37.50", "75.00"]
    (busy,) = (line for line in lines if line.startswith("busy"))
    assert "running" in busy and "1/2" in busy
    assert [line for line in lines if "skipped" in line] == [f"skipped: {tmp_path / 'notes'} holds no run"]
    # The best round, which is no result, is in the long list only.
    assert "selected on the test set" in long and "selected on the test set" not in out
    (done,) = (line.split() for line in long.splitlines() if line.startswith("done"))
    assert done[done.index("cclnet") + 3 :][:3] == ["50.00", "25.00", "1"]


def test_a_list_of_runs_fits_into_80_columns_and_names_changed_settings(tmp_path: Path) -> None:
    rows = [row(number, 0.5, 0.25) for number in (1, 2)]
    make_run(tmp_path / "cclnet-sysu-s1-0123abcd", rows, "swap.mode=off", "seed=3", "execution.device=cpu")
    make_run(tmp_path / "cclnet-regdb-of-a-long-name-s1-split10-0123abcd", rows, "data.name=regdb", "data.split=10")
    make_run(tmp_path / "no-preset-s1", rows, "name=my-own")
    runs = [read_run(path) for path in sorted(tmp_path.iterdir())]
    with (tmp_path / "list.txt").open("w") as file:
        print_runs(runs, Console(file=file, width=80), long=False)
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert max(map(len, lines)) <= 80
    head, *rest = lines
    assert head.split() == ["run", "data", "rounds", "state", "Rank-1", "mAP"]
    place = next(place for place, line in enumerate(rest) if line.startswith("cclnet-sysu"))
    assert rest[place].split() == ["cclnet-sysu-s1-0123abcd", "sysu", "2/2", "finished", "50.00", "25.00"]
    # Neither seed nor device, but what `make_run` itself changes of preset `smoke`.
    assert rest[place + 1].strip() == "stages.clip_rounds=0, stages.prepare_rounds=2, swap.mode=off"
    assert rest[-1].startswith("no-preset-s1")


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
