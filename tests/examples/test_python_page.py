"""docs/python.md runs on a finished run, and the tables of the package are those of the folder."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vireid
from pipeline.config.cclnet import CclnetConfig
from pipeline.runs.open import run_path
from pipeline.storage.run_reader import read_run
from tests.architecture.source_tree import ROOT
from tests.pipeline.reports.recorded_runs import make_run, row

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user: `runs` with a finished run, `data` with its images."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "drawn-demo").symlink_to(smoke_data)
    monkeypatch.chdir(tmp_path)
    return run_path(finished_run)


def test_every_block_of_the_page_runs(folder: Path) -> None:
    values: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(re.sub(r'^RUN = "[^"]*"', f"RUN = {str(folder)!r}", block, flags=re.MULTILINE), values)
    assert values["rounds"].index.tolist() == [1, 2, 3, 4]
    assert set(values["labels"]["modality"]) == {"visible", "infrared"}
    images = sorted(path.name for path in Path("data/drawn-demo/cam3/0001").iterdir())
    assert values["vectors"].index.tolist() == images == values["found"]["query"].unique().tolist()
    assert values["found"].groupby("query")["rank"].apply(list).tolist() == [[1, 2, 3, 4, 5]] * len(images)
    assert values["found"]["score"].between(-1, 1).all()


def test_several_images_have_the_vectors_of_their_folder(folder: Path) -> None:
    run = vireid.open(folder, device="cpu")
    images = sorted(Path("data/drawn-demo/cam3/0001").iterdir())[::-1]
    vectors, of_folder = run.embed(map(str, images), "infrared"), run.embed(images[0].parent, "infrared")
    assert vectors.index.tolist() == [str(image) for image in images]
    np.testing.assert_allclose(vectors.to_numpy()[::-1], of_folder.to_numpy(), atol=1e-6)


def test_rounds_and_settings_are_those_of_the_folder(folder: Path) -> None:
    run, record = vireid.open(str(folder)), read_run(folder)
    assert run.rounds()["train/loss/total"].to_dict() == {
        number: one["train/loss/total"] for number, one in record.rounds.items()
    }
    assert run.settings()["labelling.visible.k1"] == record.config.labelling.visible.k1


def test_runs_are_listed_in_percent_and_what_is_no_run_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "one", [row(1, 0.5, 0.25), row(2)])
    make_run(tmp_path / "two", [], "seed=2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    table = vireid.runs(str(tmp_path))
    assert table.loc["one", ["rounds", "planned", "state", "rank1", "mAP"]].tolist() == [2, 2, "finished", 50.0, 25.0]
    assert table.loc["two", "seed"] == 2 and pd.isna(table.loc["two", "rank1"])
    assert "skipped: " in caplog.text and "config.json" in caplog.text
    assert vireid.open(tmp_path / "two").rounds().empty
    (tmp_path / "empty").mkdir()
    assert vireid.runs(tmp_path / "empty").empty


def test_labels_have_files_and_pairs_where_they_are_recorded(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", [row(1), row(2)])
    (run / "labels").mkdir()
    labels = {"visible_labels": np.array([0, 1, -1]), "infrared_labels": np.array([1, 0])}
    cores = {"visible_core": np.array([True, True, False]), "infrared_core": np.array([True, False])}
    np.savez(run / "labels" / "round-001.npz", **labels, **cores)
    paths = {"visible_paths": np.array(["a", "b", "c"]), "infrared_paths": np.array(["d", "e"])}
    similarity = {"visible_similarity": np.array([0.5, 0.25, 0.125]), "infrared_similarity": np.array([1.0, 0.75])}
    scores = ("similarity", "visible_margin", "infrared_margin")
    pairs = {"pair_visible": np.array([1]), "pair_infrared": np.array([0])}
    pairs |= {f"pair_{name}": np.array([0.5]) for name in scores}
    np.savez(run / "labels" / "round-002.npz", **labels, **cores, **paths, **similarity, **pairs)
    opened = vireid.open(run)
    assert opened.labels(1).columns.tolist() == ["modality", "cluster", "core"]
    last = opened.labels()
    assert last["file"].tolist() == ["a", "b", "c", "d", "e"]
    assert last["cluster"].tolist() == [0, 1, -1, 1, 0]
    assert last["pair"].tolist() == [-1, 0, -1, -1, 1]  # visible 1 and infrared 0 are a pair
    assert last["similarity"].tolist() == [0.5, 0.25, 0.125, 1.0, 0.75]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda run: run.labels(7), "round 7 of .* has no labels"),
        (lambda run: run.embed([]), "no image is given"),
        (lambda run: run.embed(["a.jpg"]), "may be visible or infrared"),
        (lambda run: run.embed("a", "thermal"), "modality 'thermal' does not exist"),
        (lambda run: run.search("a", "b", "visible_to_visible"), "direction 'visible_to_visible' does not exist"),
        (lambda run: vireid.open(run.run + "nowhere").rounds(), "nowhere holds no run"),
    ],
)
def test_a_mistake_is_one_error_with_a_hint(tmp_path: Path, use: Any, message: str) -> None:
    run = vireid.open(make_run(tmp_path / "one", [row(1)]))
    with pytest.raises(vireid.VireidError, match=message) as refused:
        use(run)
    assert refused.value.hint


def test_without_pandas_the_error_names_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(vireid.VireidError, match="pandas is not installed") as refused:
        vireid.runs(tmp_path)
    assert "MLflow" in refused.value.hint
