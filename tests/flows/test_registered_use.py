"""A run by its address in MLflow: embedded with, searched with, and served on tables of image paths."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config
from pipeline.data.image_files import AS_STORED
from pipeline.inference.run_encoder import open_encoder
from pipeline.inference.saved_encoder import read_saved_encoder
from pipeline.runs.open import run_path
from pipeline.tracking.mlflow_models import FORM_TAG, SAVED
from pipeline.tracking.replay import MODELS_FORM, read_note, write_note
from tests.flows.command_line import Call
from tests.flows.plain_runs import ROOT, run_plainly


@pytest.fixture(scope="module")
def registered(
    smoke_data: Path, smoke_tree: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> tuple[AnyConfig, str]:
    """A finished run whose models are registered, and the address of its store."""
    runs = tmp_path_factory.mktemp("registered") / "runs"
    stages = {"prepare_rounds": 1, "clip_rounds": 0}
    execution = {"device": "cpu", "runs_folder": str(runs), "figures": False}
    data = {"root": str(smoke_data), "orientation": "ignore"}
    tree = {**smoke_tree, "stages": stages, "data": data, "execution": execution}
    config = load_config("smoke", (), tree)
    run_plainly(config)
    return config, f"sqlite:///{runs / 'mlflow.db'}"


@pytest.fixture
def images(smoke_data: Path) -> Path:
    """A folder of infrared images."""
    return smoke_data / "cam3"


def vectors(path: str) -> np.ndarray:
    with np.load(path) as archive:
        return np.asarray(archive["features"])


def test_vectors_are_those_of_the_run(
    vireid: Call,
    registered: tuple[AnyConfig, str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, uri = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(tracking_uri=uri)
    client.set_registered_model_alias("vireid-smoke-visible", "best", "1")
    run_id = client.get_model_version("vireid-smoke-visible", "1").run_id
    names = {
        "folder": str(run_path(config)),
        "version": "models:/vireid-smoke-infrared/1",
        "alias": "models:/vireid-smoke-visible@best",
        "newest": "models:/vireid-smoke",
        "run": f"runs:/{run_id}",
    }
    for name, address in names.items():
        code, _, err = vireid("embed", address, str(images), "--modality", "infrared", "-o", f"{name}.npz")
        assert code == 0, err
    for name in names:
        np.testing.assert_allclose(vectors(f"{name}.npz"), vectors("folder.npz"), atol=1e-5)


def test_the_way_of_reading_images_is_recorded_with_each_model(
    registered: tuple[AnyConfig, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered[1])
    encoder = open_encoder("models:/vireid-smoke-infrared/1", "cpu")
    assert encoder.reading == AS_STORED and encoder.digest.endswith("-orientation-ignore")
    served = mlflow.pyfunc.load_model("models:/vireid-smoke/1")._model_impl
    assert served._encoder.reading == AS_STORED


@pytest.mark.parametrize("address", ["models:/nothing/1", "models:/nothing", "models:/vireid-smoke@no", "runs:/no"])
def test_an_address_that_does_not_exist_has_a_hint(
    vireid: Call, registered: tuple[AnyConfig, str], images: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered[1])
    code, _, err = vireid("embed", address, str(images), "--modality", "infrared", "-o", "x.npz")
    assert code == 1 and "hint: name models:/NAME/VERSION" in err


def test_the_store_in_runs_is_the_default_and_reading_makes_no_file(
    vireid: Call, registered: tuple[AnyConfig, str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = registered[0].execution.runs_folder.parent
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)
    output, options = str(tmp_path / "x.npz"), ("--modality", "infrared")
    for address in ("models:/vireid-smoke-visible/1", "models:/vireid-smoke"):
        code, _, err = vireid("embed", address, str(images), *options, "-o", output)
        assert code == 0, err
        Path(output).unlink()
    assert [path.name for path in folder.iterdir()] == ["runs"]
    monkeypatch.chdir(tmp_path)
    code, _, err = vireid("embed", "models:/vireid-smoke/1", str(images), *options, "-o", output)
    assert code == 1 and f"{tmp_path}/runs/mlflow.db cannot be read: there is no such file" in err
    assert vireid("runs", "sync", "--runs", str(folder))[0] == 0
    assert list(tmp_path.iterdir()) == [] and [path.name for path in folder.iterdir()] == ["runs"]


def test_the_address_and_the_folder_of_a_run_are_one_encoder(
    registered: tuple[AnyConfig, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, uri = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert open_encoder("models:/vireid-smoke/1").digest == open_encoder(str(run_path(config))).digest


class Runs:
    """Unpickling it runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_no_stored_graph_is_opened(
    registered: tuple[AnyConfig, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs whose stored example runs a command when `torch.export.load` reads it."""
    _, uri = registered
    runs = tmp_path / "runs"
    shutil.copytree(Path(uri.removeprefix("sqlite:///")).parent, runs)
    monkeypatch.chdir(tmp_path)
    example = io.BytesIO()
    torch.save(((Runs(),), {}), example)
    for graph in runs.rglob("*.pt2"):
        with zipfile.ZipFile(graph) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(graph, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, example.getvalue() if "sample_inputs" in name else content)
    with contextlib.suppress(RuntimeError, ValueError, TypeError, AttributeError):  # the payload works
        torch.export.load(graph)
    assert Path("executed").exists()
    Path("executed").unlink()
    for model in (runs / "mlflow-artifacts").rglob("MLmodel"):
        if (model.parent / SAVED).exists():
            read_saved_encoder(model.parent / SAVED, "model", "cpu")
            mlflow.pyfunc.load_model(str(model.parent))
    assert not Path("executed").exists()


@pytest.mark.slow
def test_models_of_older_versions_are_registered_again_by_repeating_the_command(
    vireid: Call, registered: tuple[AnyConfig, str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, uri = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    client = MlflowClient(tracking_uri=uri)
    client.delete_model_version_tag("vireid-smoke", "1", FORM_TAG)
    note = read_note(run_path(config))
    assert note is not None and note.form == MODELS_FORM
    write_note(run_path(config), replace(note, form=1))
    command = (
        "embed",
        "models:/vireid-smoke/1",
        str(images),
        "--modality",
        "infrared",
        "-o",
        "x.npz",
        "--device",
        "cpu",
    )
    code, _, err = vireid(*command)
    assert code == 1 and "was registered by an older version as graphs" in err and "repeat the training command" in err
    run_plainly(config)
    assert [one.version for one in client.search_model_versions("name = 'vireid-smoke'")] == [2, 1]
    assert len(client.search_model_versions("name = 'vireid-smoke-visible'")) == 1
    assert vireid(*command)[0] == 0


@pytest.mark.slow
def test_mlflow_predicts_on_a_table_of_paths(
    vireid: Call, registered: tuple[AnyConfig, str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, uri = registered
    monkeypatch.chdir(tmp_path)
    assert vireid("embed", str(run_path(config)), str(images), "--modality", "infrared", "-o", "own.npz")[0] == 0
    with np.load("own.npz") as own:
        paths, expected = own["paths"][:3], own["features"][:3]
    with Path("table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "modality"])
        rows.writerows([str(images / path), "infrared"] for path in paths)
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", "models:/vireid-smoke/1"]
    command += ["-i", "table.csv", "-t", "csv", "-o", "vectors.json", "--env-manager", "local"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)
    found = json.loads(Path("vectors.json").read_text())["predictions"]
    np.testing.assert_allclose(np.array(found, np.float32), expected, atol=1e-5)
