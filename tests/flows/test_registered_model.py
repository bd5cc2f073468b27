"""The result of a run in MLflow's registry: the encoder that was measured, which loads without this program."""

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model

from models.modality import Modality
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config
from pipeline.data.images import gather_pixels
from pipeline.methods import method_of
from pipeline.runs.open import reopen_run, run_path
from pipeline.tracking import mlflow_models
from pipeline.tracking.replay import read_note
from pipeline.tracking.sync import sync_run, unsynced_runs
from tests.flows.plain_runs import run_plainly
from tests.flows.test_csdn import SMALL as SMALL_CSDN
from tests.flows.test_eees import SMALL as SMALL_EEES

SHORT = {"prepare_rounds": 1, "clip_rounds": 0}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Of the store beside the runs, which is the process's own as well, as for a user who loads a model."""
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(tracking_uri=uri)


def tracked(preset: str, data: Path, runs: Path, tree: dict[str, Any], **execution: object) -> AnyConfig:
    execution = {"device": "cpu", "runs_folder": str(runs), "figures": False, **execution}
    return load_config(preset, (), {**tree, "data": {"root": str(data)}, "execution": execution})


def files_of(client: MlflowClient, name: str, version: str = "1") -> Path:
    return Path(mlflow.artifacts.download_artifacts(client.get_model_version_download_uri(name, version)))


METHODS = [
    ("smoke", "cclnet", {"evaluation": {"trials": 1, "selection": "test_best", "every": 1, "flip": "mean"}}),
    pytest.param("csdn-sysu", "csdn", SMALL_CSDN, marks=pytest.mark.slow),
    pytest.param("eees-sysu", "eees", SMALL_EEES, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "method", "tree"), METHODS, ids=["cclnet", "csdn", "eees"])
def test_the_registered_model_gives_the_vectors_that_were_measured(
    client: MlflowClient,
    smoke_data: Path,
    smoke_tree: dict[str, object],
    tmp_path: Path,
    preset: str,
    method: str,
    tree: dict[str, Any],
) -> None:
    tree = smoke_tree | tree if method == "cclnet" else tree
    config = tracked(preset, smoke_data, tmp_path / "runs", tree)
    report = run_plainly(config)
    assert report is not None
    with reopen_run(run_path(config), method_of, data_root=None, device="cpu") as (run, evaluator):
        encoder = run.new_encoder()
        selected = run.state.selected
        encoder.load_state_dict(run.state.encoder.state_dict() if selected is None else selected.encoder)
        assert evaluator.test is not None
        images, measured = evaluator.test, run.extract_held_out_features(evaluator.test, encoder)
    for modality in Modality:
        name = f"vireid-{config.name}-{modality}"
        (version,) = client.search_model_versions(f"name = '{name}'")
        assert version.tags["vireid.run"] == run_path(config).name
        assert version.tags["vireid.round"] == str(report.model.round)
        folder = files_of(client, name)
        assert not [path for path in folder.rglob("*") if path.suffix in {".pth", ".pkl", ".pt"}]
        model = mlflow.pytorch.load_model(f"models:/{name}/1")
        rows = np.arange(7)  # the example has two
        with torch.inference_mode():
            vectors = model(torch.from_numpy(gather_pixels(images[modality], rows))).numpy()
        np.testing.assert_allclose(vectors, measured[modality].vectors[rows], atol=1e-5)
    assert not (run_path(config) / "unregistered").exists()


def test_a_model_says_what_it_takes_and_holds_weights_as_plain_bytes(
    client: MlflowClient, smoke_data: Path, smoke_tree: dict[str, object], tmp_path: Path
) -> None:
    config = tracked("smoke", smoke_data, tmp_path / "runs", smoke_tree | {"stages": SHORT})
    run_plainly(config)
    folder = files_of(client, "vireid-smoke-infrared")
    signature = Model.load(str(folder)).signature
    height, width = config.images.height, config.images.width
    assert signature.inputs.inputs[0].shape == (-1, height, width, 3)
    assert signature.inputs.inputs[0].type == np.uint8
    requirements = (folder / "requirements.txt").read_text().split()
    assert [one.partition("==")[0] for one in requirements] == ["mlflow", "torch", "numpy"]
    assert "+" not in "".join(requirements)
    with zipfile.ZipFile(folder / "data" / "model.pt2") as archive:
        for kind in ("weights", "constants"):
            described = json.loads(archive.read(f"model/data/{kind}/model_{kind}_config.json"))["config"]
            assert described and not any(one["use_pickle"] for one in described.values())
    table = files_of(client, "vireid-smoke") / "data" / "encoder"
    assert sorted(path.name for path in table.iterdir()) == ["encoder.json", "encoder.safetensors"]
    # The same command again: neither a second version nor another export.
    assert read_note(run_path(config)).models
    run_plainly(config)
    assert len(client.search_model_versions("name = 'vireid-smoke-infrared'")) == 1


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_costs_a_warning(
    client: MlflowClient,
    smoke_data: Path,
    smoke_tree: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("this operation has no translation\nand a long story")

    config = tracked("smoke", smoke_data, tmp_path / "runs", smoke_tree | {"stages": SHORT})
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(mlflow.pytorch, "save_model", refuse)
        assert run_plainly(config) is not None
    (said,) = [record.getMessage() for record in caplog.records if "registered" in record.getMessage()]
    assert said.endswith("cannot be exported: this operation has no translation")
    note = read_note(run_path(config))
    assert (note.ended, note.models) == ("FINISHED", False)
    # Later, with what was missing: the finished run registers its result.
    run_plainly(config)
    assert read_note(run_path(config)).models


@pytest.mark.slow
def test_a_run_that_ends_with_tracking_off_leaves_its_models_for_sync(
    client: MlflowClient, smoke_data: Path, smoke_tree: dict[str, object], tmp_path: Path
) -> None:
    config = tracked("smoke", smoke_data, tmp_path / "runs", smoke_tree | {"stages": SHORT}, register_model=False)
    run_plainly(config)
    path = run_path(config)
    for tracking in (False, False):  # the second start exports again, and deletes nothing
        run_plainly(
            tracked(config.name, smoke_data, tmp_path / "runs", smoke_tree | {"stages": SHORT}, tracking=tracking)
        )
        assert sorted(model.name for model in (path / "unregistered").iterdir()) == ["infrared", "table", "visible"]
        assert not read_note(path).models
    assert list(unsynced_runs(tmp_path / "runs")) == [path]
    sync_run(path)
    assert read_note(path).models and not (path / "unregistered").exists()
    assert len(client.search_model_versions("name = 'vireid-smoke-infrared'")) == 1


def test_it_can_be_turned_off(
    client: MlflowClient, smoke_data: Path, smoke_tree: dict[str, object], tmp_path: Path
) -> None:
    tree = smoke_tree | {"stages": SHORT}
    run_plainly(tracked("smoke", smoke_data, tmp_path / "runs", tree, register_model=False))
    assert client.search_registered_models() == []


def test_the_name_of_a_build_is_no_requirement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_models, "version", lambda _: "2.13.0+cpu")
    assert mlflow_models._release("torch") == "2.13.0"
