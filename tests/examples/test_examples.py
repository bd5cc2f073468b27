"""The examples run on the synthetic data set, and the notebook on a finished run."""

import json
import re
import runpy
from pathlib import Path

import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.runs.open import run_path
from pipeline.tracking.replay import read_note
from pipeline.tracking.sync import sync_run
from tests.architecture.source_tree import ROOT

EXAMPLES = ROOT / "examples"
PAGE = EXAMPLES / "cclnet_in_100_lines.py"
NOTEBOOK = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))


def test_the_method_fits_into_100_lines_and_learns(smoke_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 100
    runpy.run_path(str(PAGE))["main"](smoke_data, rounds=1)
    before, round_, after = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"round 1: \d+ \+ \d+ clusters, \d+ pairs, loss [\d.]+", round_)
    scores = [re.fullmatch(r"(before|after): Rank-1 ([\d.]+)%, mAP ([\d.]+)%", line) for line in (before, after)]
    assert [found[1] for found in scores] == ["before", "after"]
    assert float(scores[1][3]) > float(scores[0][3])


def test_the_page_of_the_method_uses_no_run_and_no_service() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"pipeline\.(?:runs|storage|tracking)|prefect|mlflow|import _|\._", text) == []


@pytest.mark.parametrize("named", [True, False], ids=["a-run", "demo-clip"])
def test_two_folders_are_searched(
    named: bool, finished_run: CclnetConfig, smoke_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLES / "search_two_folders.py"))["main"]
    run = str(run_path(finished_run)) if named else None
    main(smoke_data / "cam1" / "0001", smoke_data / "cam3" / "0001", run, top=2)
    lines = capsys.readouterr().out.splitlines()
    images = sorted(path.name for path in (smoke_data / "cam3" / "0001").iterdir())
    assert lines[::3] == images
    assert all(re.fullmatch(r"   [12]\. -?[\d.]+  \d+\.jpg", line) for line in lines if line not in images)


def execute(run: str, runs: Path) -> dict[str, object]:
    """The variables of the notebook after all of its cells, run in this process: a kernel takes ten seconds."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    values: dict[str, object] = {}
    for number, cell in enumerate(cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), values)
        if number == 0:
            values |= {"RUN": run, "RUNS": runs}
    plt.close("all")
    return values


def test_the_notebook_reads_a_run_from_its_folder(finished_run: CclnetConfig) -> None:
    folder = run_path(finished_run)
    values = execute(str(folder), folder.parent)
    assert values["rounds"].index.tolist() == [1, 2, 3, 4]
    assert values["rounds"]["train/loss/total"].gt(0).all()
    assert sum(values["sizes"]["visible"]) == (values["labels"]["visible"] >= 0).sum()


@pytest.mark.slow
def test_the_notebook_reads_a_run_from_mlflow(finished_run: CclnetConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = run_path(finished_run)
    sync_run(folder)
    note = read_note(folder)
    recorded, on_disk = execute(f"runs:/{note.run_id}", folder.parent), execute(str(folder), folder.parent)
    assert recorded["folder"] == folder
    numbers = [name for name in recorded["rounds"] if name.startswith(("train/", "test/", "labels/"))]
    assert len(numbers) > 20
    assert recorded["rounds"][numbers].equals(on_disk["rounds"][numbers].astype(float))


def test_the_notebook_is_stored_without_output() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)
