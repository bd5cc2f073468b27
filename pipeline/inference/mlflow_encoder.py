"""Models that a run registered in MLflow, used without the run folder."""

import json
import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from models.modality import Modality, PerModality
from pipeline.data.image_files import FROM_ANYWHERE, ImageReading
from pipeline.errors import WeightsError
from pipeline.inference.encoder import GraphEncoder
from pipeline.runtime.device import resolve_device
from pipeline.tracking.mlflow_models import GRAPH, READING

_FORM = "name models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID; MLFLOW_TRACKING_URI if they are not in runs/"


def read_registered_encoder(name: str, device: str = "auto", runs_folder: Path = Path("runs")) -> GraphEncoder:
    """Download the registered models of a run, for both modalities.

    * `name`: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME` (newest) or `runs:/RUN_ID`. The model of one
      modality also finds the other of the same run.
    * `runs_folder`: Holds `mlflow.db`, unless MLFLOW_TRACKING_URI is set.

    Raises:
        WeightsError: MLflow has no such model, or does not respond.
        ConfigError: No such device.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs_folder.resolve() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    try:
        run_id = _run_id(client, name)
        versions: list[ModelVersion] = list(client.search_model_versions(f"run_id = '{run_id}'"))
        found = {
            modality: version for version in versions for modality in Modality if version.name.endswith(f"-{modality}")
        }
        if len(found) < len(Modality):
            raise WeightsError(f"the run of {name} has not registered an encoder at {uri}", hint=_FORM)
        addresses = PerModality.build(lambda modality: f"models:/{found[modality].name}/{found[modality].version}")
        folders = addresses.map(lambda one: Path(download_artifacts(artifact_uri=one, tracking_uri=uri)))
    except MlflowException as error:
        raise WeightsError(f"MLflow at {uri} has no model {name}: {error.message}", hint=_FORM) from error
    model = Model.load(str(folders.visible))
    signature, recorded = model.signature, (model.metadata or {}).get(READING)
    assert signature is not None, "registered with every model"
    _, height, width, _ = signature.inputs.inputs[0].shape
    files = folders.map(lambda folder: folder / GRAPH)
    # A run registers one pair of models, so its identifier identifies their weights.
    reading = FROM_ANYWHERE if recorded is None else ImageReading.from_dict(json.loads(recorded))
    return GraphEncoder(name, f"mlflow-{run_id}", height, width, files, resolve_device(device), reading)


def _run_id(client: MlflowClient, name: str) -> str:
    kind, _, rest = name.partition(":/")
    if kind == "runs":
        return rest.strip("/").partition("/")[0]
    model, at, alias = rest.strip("/").partition("@")
    if at:
        return str(client.get_model_version_by_alias(model, alias).run_id)
    model, _, version = model.partition("/")
    if version:
        return str(client.get_model_version(model, version).run_id)
    versions = client.search_model_versions(f"name = '{model}'", order_by=["version_number DESC"], max_results=1)
    if not versions:
        raise WeightsError(f"MLflow has no model {model}", hint=_FORM)
    return str(versions[0].run_id)
