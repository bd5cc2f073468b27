"""A folder of runs can be moved or copied: MLflow finds figures in the new place, and writes nothing to the old one."""

import logging
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils

from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.places import ARTIFACTS, present_place
from pipeline.tracking.replay import read_note
from pipeline.tracking.store import page_of_runs, prepare_store, sqlite_file
from pipeline.tracking.sync import sync_run, unsynced_runs
from tests.pipeline.tracking.test_mlflow_facts import leave_run


@pytest.fixture
def runs(made_runs: Path) -> Path:
    """A folder of runs with one that MLflow has recorded."""
    sync_run(leave_run(made_runs / "smoke-s1"))
    return made_runs


def client_of(runs: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")


def figures(runs: Path) -> list[str]:
    client, run_id = client_of(runs), read_note(runs / "smoke-s1").run_id
    parent = client.get_run(run_id)
    child = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")[0]
    return [item.path for item in (*client.list_artifacts(child.info.run_id), *client.list_artifacts(run_id, "images"))]


@pytest.mark.parametrize("way", [shutil.move, shutil.copytree])
def test_figures_are_there_in_the_new_place_and_resuming_writes_only_there(runs, tmp_path, way, caplog):
    new, before = tmp_path / "else where" / "runs", figures(runs)
    new.parent.mkdir()
    way(runs, new)
    utils._artifact_repos_cache.clear()  # as in a new process: MLflow's client keeps the folder of each run
    old = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO):
        prepare_store(new)
        prepare_store(new)
    assert sum("has moved" in one.getMessage() for one in caplog.records) == 1
    assert figures(new) == before != []
    with RunFolder.reopen(new / "smoke-s1") as folder:
        tracker = MlflowTracker(new, folder)
        tracker.start(folder.config)
        tracker.round(3, {"a": 1.0}, {}, [folder.path / "config.json"])
        tracker.finish("KILLED")
    place = client_of(new).get_run(read_note(new / "smoke-s1").run_id).info.artifact_uri
    assert place.startswith((new / ARTIFACTS).as_uri())
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == old, "nothing written there"
    assert runs.exists() == (way is shutil.copytree)


def test_a_reader_of_a_moved_folder_finds_artifacts_and_writes_nothing(runs, tmp_path):
    place = client_of(runs).get_run(read_note(runs / "smoke-s1").run_id).info.artifact_uri
    shutil.move(runs, tmp_path / "new")
    file = tmp_path / "new" / "mlflow.db"
    before = file.read_bytes()
    assert present_place(file, place) == place.replace(str(runs), str(tmp_path / "new"))
    assert present_place(file, "s3://elsewhere/1") == "s3://elsewhere/1"
    assert file.read_bytes() == before


def test_a_database_that_was_moved_without_its_artifacts_keeps_their_paths(runs, tmp_path):
    before = figures(runs)
    (tmp_path / "new").mkdir()
    shutil.copytree(runs / "smoke-s1", tmp_path / "new" / "smoke-s1")
    shutil.move(runs / "mlflow.db", tmp_path / "new" / "mlflow.db")
    prepare_store(tmp_path / "new")
    assert figures(tmp_path / "new") == before


def test_reading_makes_no_store(runs, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    shutil.copytree(runs / "smoke-s1", empty / "smoke-s1")
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    assert list(unsynced_runs(empty)) == [empty / "smoke-s1"]
    assert [path.name for path in empty.iterdir()] == ["smoke-s1"]
    assert figures(runs)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_page_of_runs_is_that_of_the_experiment(runs, made_runs):
    number = client_of(runs).get_experiment_by_name("vireid").experiment_id
    page = f"http://127.0.0.1:5001/#/experiments/{number}/runs?workflowType=machine_learning"
    assert page_of_runs(runs, "http://127.0.0.1:5001") == page
    assert sqlite_file("sqlite:////a/b.db") == Path("/a/b.db")
