"""What is written to MLflow, and how: parameters, points of series, child runs. Run folders are not known here."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.config.flat import flat
from pipeline.tracking.tracker import Numbers, Status

SQLITE = "sqlite:///"
"""How the address of a database file begins."""

_ROUND_TAG = "vireid.round"
_MAX_PARAMS = 100  # MLflow's own limits, by which a server refuses what is larger
_MAX_VALUE_LENGTH = 6000


def artifact_location(uri: str) -> str | None:
    """Beside a database file, where MLflow would take the working folder; a server decides for itself."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlflow-artifacts").as_uri()


def create_round(client: MlflowClient, experiment_id: str, parent: str, number: int) -> str:
    """Begin the child run of a round, and say what its identifier is."""
    tags = {MLFLOW_PARENT_RUN_ID: parent, _ROUND_TAG: str(number)}
    return str(client.create_run(experiment_id, tags=tags, run_name=f"round-{number:03d}").info.run_id)


def find_rounds(client: MlflowClient, experiment_id: str, parent: str) -> dict[int, str]:
    """The identifiers of a run's rounds, by number."""
    children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    found = client.search_runs([experiment_id], children, max_results=10_000)
    return {int(child.data.tags[_ROUND_TAG]): child.info.run_id for child in found}


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Flat and as text, each once: MLflow refuses a second value."""
    known = client.get_run(run_id).data.params
    new = [Param(name, _text(value)) for name, value in flat(params) if name not in known]
    for first in range(0, len(new), _MAX_PARAMS):
        client.log_batch(run_id, params=new[first : first + _MAX_PARAMS])


def log_points(client: MlflowClient, run_id: str, step: int, metrics: Numbers, repeated: bool) -> None:
    """One point a series; of a repeated round, only those that are missing or have changed."""
    now = time.time_ns() // 1_000_000
    # Stores replace infinity by the largest number, which no chart survives: it becomes undefined, and shows as a gap.
    finite = {name: float(value) if math.isfinite(value) else math.nan for name, value in metrics.items()}
    points = [Metric(name, value, now, step) for name, value in finite.items()]
    if repeated:
        points = [point for point in points if not _is_recorded(client, run_id, point)]
    client.log_batch(run_id, metrics=points)


def _is_recorded(client: MlflowClient, run_id: str, point: Metric) -> bool:
    values = [old.value for old in client.get_metric_history(run_id, point.key) if old.step == point.step]
    return bool(values) and (values[-1] == point.value or (math.isnan(values[-1]) and math.isnan(point.value)))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 1] + "…"


def terminate(client: MlflowClient, run_id: str, status: Status) -> None:
    """End a run, whether or not it has ended before."""
    # MLflow greets each ended run on stdout, where our results go, when it talks to a server.
    with contextlib.redirect_stdout(sys.stderr):
        client.set_terminated(run_id, status)
