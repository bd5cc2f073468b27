"""What a terminal shows: names with brackets, colons, control characters and letters that it lacks."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import DataError
from tests.flows.command_line import Call
from tests.pipeline.reports.recorded_runs import make_run

ODD = "[2026-11] night [/bold] :smile: \\[x]"


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    for camera, person in ((1, 1), (3, 1)):
        place = folder / f"cam{camera}" / f"{person:04d}"
        place.mkdir(parents=True)
        (place / "a.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_a_path_is_printed_as_it_is(vireid: Call, tmp_path: Path) -> None:
    folder = _folder(tmp_path, ODD.replace("/", ""))
    out = tmp_path / "[a] :x: m.csv"
    options = ("--pattern", "cam{camera}/{person}/{name}", "--infrared-cameras", "3", "--out", str(out))
    code, printed, err = vireid("data", "manifest", str(folder), *options)
    assert code == 0, err
    assert str(out) in printed
    assert f"--root {shlex.quote(str(folder))}" in printed


def test_an_error_with_brackets_is_printed_as_it_is(vireid: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError(f"{ODD} is missing", hint=f"look at {ODD}")

    monkeypatch.setattr("pipeline.data.dataset.inspect_dataset", fail)
    code, _, err = vireid("data", "check", "sysu", "somewhere")
    assert (code, err) == (1, f"error: {ODD} is missing hint: look at {ODD}")


def test_a_table_shows_brackets(vireid: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "runs[old]" / "smoke[1]", [])
    code, printed, err = vireid("runs", "--runs", str(tmp_path / "runs[old]"))
    assert code == 0, err
    assert "smoke[1]" in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_the_terminal_lacks_are_escaped(tmp_path: Path, encoding: str) -> None:
    folder = _folder(tmp_path, "people")
    out = tmp_path / "s\u00fcd-\u4e2d.csv"
    call = [sys.executable, "-c", "from flows.cli.app import main; main()", "data", "manifest", str(folder)]
    call += ["--pattern", "cam{camera}/{person}/{name}", "--infrared-cameras", "3", "--out", str(out)]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(call, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u4e2d.csv" in done.stdout
    assert out.is_file()


def test_a_file_that_the_system_refuses_is_one_error(vireid: Call, tmp_path: Path) -> None:
    code, _, err = vireid("label", str(tmp_path / ("n" * 300 + ".npy")))
    assert code == 1
    assert err.startswith("error: ") and "hint: " in err and "Traceback" not in err
