"""Whether a run was trained on synthetic people is known from its folder, also of runs of earlier versions."""

import json
from pathlib import Path

import pytest

from pipeline.data.synthetic.record import shows_synthetic
from pipeline.storage.origin import is_synthetic
from pipeline.storage.run_reader import read_run
from tests.pipeline.reports.recorded_runs import make_run, row


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of images that is a synthetic data set."""
    (tmp_path / "data" / "cam1").mkdir(parents=True)
    (tmp_path / "data" / "drawn.json").write_text("{}")
    return tmp_path / "data"


@pytest.mark.parametrize(("kind", "expected"), [("drawn", True), ("licensed", False), ("custom", False)])
@pytest.mark.parametrize("record", ["environment.json", "evaluation.json"])
def test_the_record_of_a_run_says_it(tmp_path: Path, data: Path, record: str, kind: str, expected: bool) -> None:
    run = make_run(tmp_path / "run", [row(1, 0.5, 0.25)], f"data.root={data}")
    section = "data_set" if record == "environment.json" else "data"
    (run / record).write_text(json.dumps({section: {"kind": kind}}))
    assert is_synthetic(run) is expected
    assert read_run(run).data == ("sysu, synthetic" if expected else "sysu")
    assert read_run(run).to_dict()["synthetic"] is expected


def test_a_run_without_such_a_record_is_known_by_its_data(tmp_path: Path, data: Path) -> None:
    assert is_synthetic(make_run(tmp_path / "drawn", [], f"data.root={data}"))
    assert is_synthetic(make_run(tmp_path / "table", [], f"data.root={data}/people.csv"))
    assert not is_synthetic(make_run(tmp_path / "others", [], f"data.root={tmp_path}"))
    assert not is_synthetic(make_run(tmp_path / "none", []))


def test_a_damaged_record_is_no_answer(tmp_path: Path, data: Path) -> None:
    run = make_run(tmp_path / "run", [], f"data.root={data}")
    (run / "environment.json").write_text("{")
    (run / "evaluation.json").write_text('{"data": 3}')
    assert is_synthetic(run)


def test_images_of_a_synthetic_data_set_are_known_by_the_folders_above_them(tmp_path: Path, data: Path) -> None:
    assert shows_synthetic(data / "cam1" / "0001.jpg") and shows_synthetic(data)
    assert not shows_synthetic(tmp_path) and not shows_synthetic(Path("a\0b"))
