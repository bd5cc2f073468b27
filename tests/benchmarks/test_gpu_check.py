"""The check of a GPU: a dry run of everything on a CPU, parts that end early, what is recorded, what is refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check, gpu_check_machine, gpu_check_parts
from benchmarks.gpu_check import PARTS, main, run_check
from benchmarks.gpu_check_machine import counted, marked_files
from benchmarks.gpu_check_parts import Check, run_part
from benchmarks.gpu_check_report import LINES, report, target_table
from pipeline.runtime.processes import running_process
from tests.fresh_process import run_fresh

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("prefect", "mlflow", "typer", "matplotlib", "fastapi", "uvicorn", "psutil", "transformers")
HIDE = f"""
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda _, name, *more: None if name in {ABSENT} else find_spec(name, *more))
"""
TOYS = "tests.benchmarks.toy_parts"
EMPTY = {"kind": gpu_check.KIND, "started": "now", "device": "cuda:0", "dry_run": False, "parts": {}}


@pytest.mark.slow
def test_a_dry_run_measures_every_row_without_the_packages_that_only_runs_need(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for name in ("prefect", "mlflow"):
        refused = subprocess.run([sys.executable, "-c", f"import {name}"], env=environment, capture_output=True)
        assert f"No module named '{name}'".encode() in refused.stderr
    out = tmp_path / "check.json"
    # The boxes of a busy machine: what is tested is that all parts get to their end.
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--dry-run", "--minutes", "60"]
    answer = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    record = json.loads(out.read_text())
    assert list(record["parts"]) == list(PARTS)
    rows = {(part, row): found for part, some in record["parts"].items() for row, found in some["rows"].items()}
    unmeasured = {at: found for at, found in rows.items() if {"skipped", "failed", "ended"} & set(found)}
    assert set(unmeasured) == {("machine", "product in bfloat16")}, unmeasured
    assert not [part for part in record["parts"].values() if "ended" in part]
    assert {(part, row) for _, _, part, row, _ in LINES} <= set(rows)
    tests = rows["tests", "pytest -m gpu"]
    assert set(tests["counts"]) == {"skipped"} and tests["counts"]["skipped"] > 50
    assert {rows["rounds", method]["difference"] for method in ("cclnet", "csdn", "eees")} == {0.0}
    assert rows["speed", "64 + 64"]["extract"]["ratio"].keys() == {"streamed"}
    assert rows["schedule", "round"]["schedules"].keys() == {"cclnet-sysu", "plus-sysu"}
    assert out.with_suffix(".md").read_text() == answer.stdout
    assert "no figure is a measurement" in answer.stdout


def test_the_process_that_parts_are_forked_from_has_imported_all_and_touched_no_gpu() -> None:
    # CUDA cannot be used in a fork of a process that has used it, and even counting GPUs uses it.
    run_fresh(
        """
import sys, torch
def touched(*_, **__): raise AssertionError("CUDA is used by an import")
for name in ("is_available", "device_count", "init", "_lazy_init"): setattr(torch.cuda, name, touched)
from benchmarks.gpu_check_preload import MODULES
assert all(name in sys.modules for name in MODULES)
"""
    )


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setattr(gpu_check_parts, "PRELOADED", [])  # toys need none of it
    return Check("cpu", dry_run=True, scratch=tmp_path)


def last_of(check: Check, name: str, seconds: float = 300.0) -> dict[str, Any]:
    """What is known about a part at its end."""
    found: list[dict[str, Any]] = []
    run_part(f"{TOYS}:{name}", check, seconds, found.append)
    return found[-1]


class TestParts:
    def test_a_row_that_cannot_be_measured_has_its_reason_and_the_next_one_is_measured(self, check: Check) -> None:
        part = last_of(check, "whole")
        rows = part["rows"]
        assert "ended" not in part
        assert [rows[name]["value"] for name in ("first", "last")] == [1, 2]
        assert rows["large"]["skipped"].startswith("CUDA out of memory")
        assert rows["absent"]["skipped"] == "No module named 'no_such_package'"
        assert rows["wrong"]["failed"].startswith("ZeroDivisionError")

    @pytest.mark.slow
    def test_a_part_out_of_time_keeps_its_rows_and_its_programs_end(self, check: Check) -> None:
        part: dict[str, Any] = {}
        seconds = 5.0
        while "first" not in part.get("rows", {}) or not (check.scratch / "pid").exists():
            part = last_of(check, "endless", seconds)  # longer, where the machine is too busy to get to the program
            seconds *= 2
        assert part["rows"]["first"]["value"] == 1
        assert "second" not in part["rows"]
        assert part["ended"].startswith("out of time after")
        assert running_process(int((check.scratch / "pid").read_text())) is None

    def test_a_process_that_is_killed_keeps_its_rows(self, check: Check) -> None:
        part = last_of(check, "killed")
        assert part["rows"]["first"]["value"] == 1
        assert part["ended"] == "its process ended with exit code -9"

    def test_a_part_without_rows_has_the_reason(self, check: Check) -> None:
        assert last_of(check, "broken")["rows"]["all"]["failed"] == "ValueError: no rows today"

    def test_an_interrupted_check_has_written_what_it_had(
        self, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(rows: str, *others: Any) -> None:
            if rows == "second":
                raise KeyboardInterrupt
            run_part(rows, *others)

        monkeypatch.setattr(gpu_check, "PARTS", {"first": (f"{TOYS}:whole", 1), "second": ("second", 1)})
        monkeypatch.setattr(gpu_check, "run_part", interrupted)
        out = tmp_path / "check.json"
        with pytest.raises(KeyboardInterrupt):
            run_check(check, 10.0, out, ["first", "second"])
        record = json.loads(out.read_text())
        assert record["parts"]["first"]["rows"]["last"]["value"] == 2
        assert out.with_suffix(".md").exists()


class TestTable:
    def test_what_is_not_there_is_not_measured(self) -> None:
        assert target_table(EMPTY).count("| not measured |") == len(LINES)

    def test_a_missing_figure_has_its_reason(self) -> None:
        rows = {"64 + 64": {"skipped": "CUDA out of memory"}}
        parts = {"speed": {"rows": rows, "ended": "out of time after 100 s"}}
        text = report(EMPTY | {"parts": parts})
        assert "| ≥ 8,000 images/s | not measured: CUDA out of memory |" in text
        assert "speed: out of time after 100 s." in text

    def test_the_documentation_has_the_same_rows_and_targets(self) -> None:
        page = (ROOT / "docs" / "many-gpus.md").read_text(encoding="utf-8")
        for what, target, *_ in LINES:
            assert re.search(rf"^\| {re.escape(what)} \| *{re.escape(target)} *\|", page, re.MULTILINE), what

    def test_tests_are_counted_and_those_that_fail_have_a_name(self) -> None:
        log = (
            "tests/gpu/test_cuda.py::TestEpoch::test_one[bare-text and swap] PASSED [ 50%]\n"
            "tests/gpu/test_cuda.py::test_two FAILED [100%]\nsomething else PASSED\n"
        )
        found = counted(log, 1)
        assert found["counts"] == {"passed": 1, "failed": 1}
        assert found["not_passed"] == ["tests/gpu/test_cuda.py::test_two"]
        assert counted(log, None)["ended"] == "out of time after 2 tests"
        assert counted("no such option", 4)["failed"] == "pytest ended with exit code 4"


def test_without_hypothesis_the_tests_that_use_it_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with_hypothesis = marked_files()
    monkeypatch.setattr(gpu_check_machine, "find_spec", {}.get)
    files, left_out = marked_files()
    assert "tests/gpu/test_cuda.py" in files
    assert "tests/clustering/test_torch_path.py" in left_out
    assert with_hypothesis == (sorted(files + left_out), [])


class TestRefusals:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_no_gpu(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--out", str(tmp_path / "check.json")]) == 1
        error = capsys.readouterr().err
        assert "error: there is no device 'cuda'; GPUs here: 0" in error
        assert "--device cpu" in error
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("other.json", "is not a record of this check"),
            ("check.txt", "does not end in .json"),
            ("nowhere/check.json", "does not exist"),
        ],
    )
    def test_a_place_that_cannot_be_written(
        self, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "other.json").write_text('{"kind": "something else"}')
        assert main(["--device", "cpu", "--dry-run", "--out", str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err
        assert (tmp_path / "other.json").read_text() == '{"kind": "something else"}'

    @pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--minutes", "soon"], ["--parts", "speed,colour"]])
    def test_a_wrong_argument(self, wrong: list[str]) -> None:
        with pytest.raises(SystemExit) as leaving:
            main(["--device", "cpu", *wrong])
        assert leaving.value.code == 2
