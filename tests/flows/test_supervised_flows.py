"""The supervised methods as users run them: tasks of Prefect, and every round in MLflow."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.deployments import train
from pipeline.config.presets import load_config
from tests.flows.test_csdn import SMALL as SMALL_CSDN
from tests.flows.test_eees import SMALL as SMALL_EEES

ROUNDS = {"csdn": ["prompts", "fusion", "image", "image"], "eees": ["image", "image"]}


@pytest.mark.usefixtures("prefect_backend")
@pytest.mark.parametrize(("method", "small"), [("csdn", SMALL_CSDN), ("eees", SMALL_EEES)])
@pytest.mark.slow
def test_a_flow_leaves_every_round_in_mlflow(
    smoke_data: Path, tmp_path: Path, method: str, small: dict[str, Any]
) -> None:
    execution = {"device": "cpu", "runs_folder": str(tmp_path / "runs")}
    report = train(
        load_config(f"{method}-sysu", (), {**small, "data": {"root": str(smoke_data)}, "execution": execution})
    )
    client = MlflowClient(tracking_uri=f"sqlite:///{(tmp_path / 'runs' / 'mlflow.db').resolve()}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = sorted((run for run in runs if run is not parent), key=lambda run: str(run.info.run_name))
    assert [run.data.params["stage"] for run in children] == ROUNDS[method]
    assert parent.info.status == "FINISHED"
    assert report is not None
    assert parent.data.metrics["test/sysu/all/1-shot/agw/map"] == pytest.approx(report.headline.map)
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"config.json", "evaluation.json", "checkpoint.pt"} <= artifacts
