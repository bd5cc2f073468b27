"""What a killed process leaves in MLflow is found again: its run, its logged models, a store that was moved."""

import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.models import Model

from pipeline.storage.run_folder import RunFolder
from pipeline.tracking import mlflow_tracker
from pipeline.tracking.mlflow_models import register_model
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import TrackingNote, read_note, write_note
from pipeline.tracking.sync import sync_run, unsynced_runs
from tests.pipeline.reports.recorded_runs import make_run, row

CONFIG = {"seed": 1}
NAME = "vireid-smoke-visible"


class Killed(BaseException):
    """Ends a call as a kill does: no `except` clause of the code in between applies."""


def client_of(runs: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")


def start(runs: Path, name: str = "run", digest: str = "aaaa") -> str:
    with RunFolder.open(runs / name, CONFIG, digest) as folder:
        MlflowTracker(runs, folder).start(CONFIG)
        note = read_note(folder.path)
        assert note is not None
        return note.run_id


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_run_without_a_note_is_found_again(made_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_tracker, "write_note", kill)
        with pytest.raises(Killed):
            start(made_runs)
    client = client_of(made_runs)
    (left,) = client.search_runs([client.get_experiment_by_name("vireid").experiment_id])
    assert start(made_runs, "other", "bbbb") != left.info.run_id
    assert start(made_runs, "another-name") != left.info.run_id
    assert start(made_runs) == left.info.run_id


def test_a_recorded_run_is_not_taken_for_one_without_a_note(made_runs: Path) -> None:
    before = start(made_runs)  # of a folder that was deleted, or of a colleague
    shutil.rmtree(made_runs / "run")
    assert start(made_runs) != before


def test_partial_files_of_a_killed_upload_are_removed(made_runs: Path) -> None:
    run_id = start(made_runs)
    (artifacts,) = (made_runs / "mlflow-artifacts").glob(f"{run_id}/artifacts")
    (artifacts / ".artifact.uploading.abc").write_bytes(b"half a checkpoint")
    assert start(made_runs) == run_id
    assert [path.name for path in artifacts.iterdir()] == ["config.json"]


def model_folder(path: Path) -> Path:
    path.mkdir()
    Model(metadata={"vireid.model": NAME, "vireid.run": "run"}).save(str(path / "MLmodel"))
    (path / "weights").write_bytes(b"1")
    return path


def logged_models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    return list(client.search_logged_models([experiment]))


CALLS = (
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_is_logged_once_wherever_its_registration_was_killed(
    made_runs: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    client = client_of(made_runs)
    experiment = client.create_experiment("x", artifact_location=(made_runs / "mlflow-artifacts").as_uri())
    for number, name in enumerate(CALLS):
        run_id = client.create_run(experiment).info.run_id
        path = model_folder(made_runs / f"model-{number}")
        call: Callable[..., Any] = getattr(MlflowClient, name)

        def killed(*values: Any, _call: Callable[..., Any] = call, **options: Any) -> None:
            if when == "after":
                _call(*values, **options)
            raise Killed

        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(MlflowClient, name, killed)
                with suppress(Killed):  # not called again where its effect was found
                    register_model(client, experiment, run_id, path)
        register_model(client, experiment, run_id, path)
        (logged,) = [one for one in logged_models(client, experiment) if one.source_run_id == run_id]
        assert str(logged.status) == "READY", name
        (version,) = client.search_model_versions(f"run_id = '{run_id}'")
        assert version.source == logged.artifact_location
        assert [one.model_id for one in client.get_run(run_id).outputs.model_outputs] == [logged.model_id]
        assert Model.load(urlsplit(version.source).path).model_id == logged.model_id
        client.delete_registered_model(NAME)


def test_unfinished_models_of_earlier_versions_are_deleted(made_runs: Path) -> None:
    client = client_of(made_runs)
    experiment = client.create_experiment("x", artifact_location=(made_runs / "mlflow-artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    path = model_folder(made_runs / "model")
    register_model(client, experiment, run_id, path)
    client.create_logged_model(experiment, NAME, run_id)
    register_model(client, experiment, run_id, path)
    (logged,) = logged_models(client, experiment)
    assert str(logged.status) == "READY"


def test_after_a_store_was_moved_away_every_recorded_run_is_sent_again(
    made_runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = make_run(made_runs / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    elsewhere = make_run(made_runs / "elsewhere", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)], "seed=2")
    make_run(made_runs / "never-recorded", [row(1, 0.5, 0.25)], "seed=3")
    sync_run(done)
    write_note(elsewhere, TrackingNote("a", rounds=2, ended="FINISHED", store="http://***@server"))
    assert list(unsynced_runs(made_runs)) == []
    # Another folder, since MLflow keeps open files of this process.
    runs = Path(shutil.copytree(made_runs, made_runs.parent / "copy", ignore=shutil.ignore_patterns("mlflow.db")))
    assert list(unsynced_runs(runs)) == [runs / "done"]
    assert not (runs / "mlflow.db").exists(), "reading makes no database"
    with caplog.at_level(logging.WARNING):
        assert sync_run(runs / "done").rounds == 2
    assert list(unsynced_runs(runs)) == []
    note = read_note(runs / "done")
    assert note is not None and client_of(runs).get_run(note.run_id).info.status == "FINISHED"


def test_the_note_names_another_store(made_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(made_runs)
    assert read_note(made_runs / "run").store is None
    shutil.copy(made_runs / "mlflow.db", made_runs / "second.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made_runs / 'second.db'}")
    start(made_runs, "second")
    assert read_note(made_runs / "second").store == f"sqlite:///{made_runs / 'second.db'}"
