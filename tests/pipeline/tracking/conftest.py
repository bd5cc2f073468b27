"""A store of MLflow that is made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.tracking.store import prepare_store


@pytest.fixture
def made_runs(made_once: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs with a new `mlflow.db`, and no other store in the environment."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)

    def make(folder: Path) -> None:
        folder.mkdir()
        prepare_store(folder)

    made = made_once("mlflow-store", make)
    (tmp_path / "runs").mkdir()
    shutil.copy(made / "mlflow.db", tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs"
