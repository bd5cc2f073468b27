"""`vireid table` and `train --seeds`: runs that differ in their seed are one row."""

import json
from pathlib import Path

import pytest

from flows.cli.table import numbers_of
from pipeline.errors import ConfigError
from tests.flows.command_line import Call, small
from tests.pipeline.reports.recorded_runs import make_run, row


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_backend")
def test_a_run_for_each_seed_and_their_mean(vireid: Call, smoke_data: Path, tmp_path: Path) -> None:
    code, out, err = vireid("train", "smoke", *small(tmp_path, smoke_data), "--seeds", "1-2", "--json")
    assert code == 0, err
    (line,) = json.loads(out)["rows"]
    assert line["label"].startswith("smoke, model.architecture=tiny")
    assert (line["varied"], len(line["runs"])) == ("seeds 1-2", 2)
    results = [json.loads((Path(run) / "evaluation.json").read_text()) for run in line["runs"]]
    first, second = (result["searches"][0]["mean"]["r1"] for result in results)
    assert line["r1"]["mean"] == pytest.approx((first + second) / 2)
    # The same command trains nothing again, and prints what `vireid table` prints of the same runs.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoint.pt")}
    assert len(before) == 2
    code, out, _ = vireid("train", "smoke", *small(tmp_path, smoke_data), "--seeds", "1-2")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoint.pt")} == before
    assert (0, out, "") == vireid("table", *line["runs"])
    assert "synthetic images" in out and "mean ± standard deviation" in out


def test_what_cannot_be_in_a_table_is_one_error_with_a_hint(vireid: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "open", [row(1)])
    for arguments, message in (
        ((), "no run for a table"),
        ((str(tmp_path / "open"),), "1 of 2 rounds"),
        ((str(tmp_path / "absent"),), "holds no run"),
        ((str(tmp_path / "open"), "--format", "html"), "--format 'html' does not exist"),
    ):
        code, out, err = vireid("table", *arguments)
        assert (code, out) == (1, "")
        assert message in err and "hint:" in err and "Traceback" not in err


def test_lists_of_seeds_are_ranges_and_numbers() -> None:
    assert numbers_of("--seeds", "1-3,7, 2", "1-3") == [1, 2, 3, 7]
    for wrong in ("", "a", "3-1", "1-101", "-1"):
        with pytest.raises(ConfigError, match="--seeds"):
            numbers_of("--seeds", wrong, "1-3")
