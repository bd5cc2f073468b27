"""RegDB: a model for each split, their average, and no model tested on another split's people."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.data.synthetic.writer import generate_dataset
from tests.flows.command_line import Call, small

pytestmark = pytest.mark.usefixtures("prefect_backend")


@pytest.fixture(scope="module")
def regdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "regdb"
    generate_dataset(folder, size="smoke", layout="regdb", difficulty="easy", height=64, width=32, workers=1)
    return folder


def options(runs: Path, data: Path) -> list[str]:
    return [*small(runs, data), "--set", "data.name=regdb"]


@pytest.mark.slow
def test_each_split_has_a_model_of_its_own_and_the_average_names_them(
    vireid: Call, regdb: Path, tmp_path: Path
) -> None:
    code, out, err = vireid("train", "smoke", *options(tmp_path, regdb), "--splits", "2,5", "--json")
    assert code == 0, err
    average = json.loads(out)
    assert average["splits"] == [2, 5]
    assert [search["name"] for search in average["searches"]] == [
        "regdb/splits-2,5/infrared_to_visible",
        "regdb/splits-2,5/visible_to_infrared",
    ]
    first, second = (trial["map"] for trial in average["searches"][0]["trials"])
    assert average["searches"][0]["mean"]["map"] == pytest.approx((first + second) / 2)
    assert [run.split("-split")[1][0] for run in average["runs"]] == ["2", "5"]
    assert json.loads(next(tmp_path.glob("*-splits.json")).read_text()) == average
    # The same command again trains nothing; a split more trains that one alone.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/metrics.jsonl")}
    code, out, _ = vireid("train", "smoke", *options(tmp_path, regdb), "--splits", "2,5")
    assert code == 0
    assert "splits 2, 5" in out
    assert len(before) == 2


@pytest.mark.slow
def test_a_model_is_not_tested_on_another_splits_people(vireid: Call, regdb: Path, tmp_path: Path) -> None:
    code, _, err = vireid("train", "smoke", *options(tmp_path, regdb), "--set", "data.split=1")
    assert code == 0, err
    (run,) = (path.parent for path in tmp_path.glob("*/checkpoint.pt"))
    code, _, err = vireid("evaluate", str(run), "--split", "2")
    assert code == 1
    assert "was trained on split 1" in err and "--splits 1-10" in err
    # Nor where another split's lists lie under the names of its own.
    swapped = tmp_path / "swapped"
    shutil.copytree(regdb, swapped)
    for path in (regdb / "idx").glob("*_2.txt"):
        shutil.copy(path, swapped / "idx" / path.name.replace("_2.txt", "_1.txt"))
    code, _, err = vireid("evaluate", str(run), "--data", str(swapped))
    assert code == 1
    assert "made with other training images" in err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--splits", "0-3"], "splits are 1 to 10", "1-10"),
        (["--splits", "all"], "is not a list of splits", "1-10"),
        ([], "split", "--splits 1-10"),
        (["--set", "data.split=11"], "data.split", "config show"),
    ],
)
def test_a_split_is_asked_for_and_checked(
    vireid: Call, regdb: Path, tmp_path: Path, arguments: list[str], message: str, hint: str
) -> None:
    code, out, err = vireid("train", "smoke", *options(tmp_path, regdb), *arguments)
    assert (code, out) == (1, "")
    assert message in err.partition("hint:")[0]
    assert hint in err.partition("hint:")[2]


def test_other_data_sets_have_no_splits(vireid: Call, smoke_data: Path, tmp_path: Path) -> None:
    code, _, err = vireid("train", "smoke", *small(tmp_path, smoke_data), "--splits", "1-10")
    assert code == 1
    assert "--splits is for RegDB" in err
