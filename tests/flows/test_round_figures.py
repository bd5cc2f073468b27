"""Which figures a round leaves, where they are recorded, and that nothing depends on them."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import AnyConfig
from pipeline.reports.comparison import FIGURES
from pipeline.runs.open import run_path
from pipeline.storage.layout import figure_path
from tests.flows.plain_runs import run_plainly

CLUSTERS = {"cluster-sizes", "eps-curve", "feature-map", "learning-curves", "pairs", "prototype-similarity"}


def with_execution(config: CclnetConfig, **changes: object) -> CclnetConfig:
    return config.model_copy(update={"execution": config.execution.model_copy(update=changes)})


def figures_of(config: AnyConfig, number: int) -> set[str]:
    files = (run_path(config) / "figures").glob(f"*-{number:03d}.*")
    return {file.stem.rpartition("-")[0] for file in files}


def test_a_round_leaves_its_figures_and_they_change_no_number(finished_run: CclnetConfig, tmp_path: Path) -> None:
    # Rounds 1 and 2 are of stage `prepare`, which has no texts.
    assert figures_of(finished_run, 2) == CLUSTERS | {"retrieval"}
    assert figures_of(finished_run, 3) == figures_of(finished_run, 4) == CLUSTERS | {"retrieval", "text-similarity"}
    for name in figures_of(finished_run, 4):
        Image.open(figure_path(run_path(finished_run), name, 4)).verify()
        assert name in FIGURES, "the page of a comparison says what it shows"
    # Two panels, losses and results, since every round was measured.
    assert Image.open(figure_path(run_path(finished_run), "learning-curves", 4)).width == 828
    without = with_execution(finished_run, figures=False, runs_folder=tmp_path / "without")
    run_plainly(without)
    assert not (run_path(without) / "figures").exists()
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (run_path(without) / name).read_bytes() == (run_path(finished_run) / name).read_bytes()


@pytest.mark.slow
def test_the_same_run_draws_the_same_bytes(finished_run: CclnetConfig, tmp_path: Path) -> None:
    again = with_execution(finished_run, runs_folder=tmp_path / "again")
    run_plainly(again)
    files = sorted((run_path(finished_run) / "figures").iterdir())
    assert [file.name for file in files] == sorted(file.name for file in (run_path(again) / "figures").iterdir())
    for file in files:
        assert file.read_bytes() == (run_path(again) / "figures" / file.name).read_bytes(), file.name
