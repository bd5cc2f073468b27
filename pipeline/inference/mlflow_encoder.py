"""Models that a run registered in MLflow, used without the run folder."""

import json
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
from pipeline.tracking.store import answering, check, tracking_uri

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_FORM = "name models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID; MLFLOW_TRACKING_URI if they are not in runs/"


def read_registered_encoder(name: str, device: str = "auto", runs_folder: Path = Path("runs")) -> GraphEncoder:
    """Download the registered models of a run, for both modalities.

    * `name`: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME` (newest) or `runs:/RUN_ID`. The model of one
      modality also finds the other of the same run.
    * `runs_folder`: Holds `mlflow.db`, unless MLFLOW_TRACKING_URI is set.

    Raises:
        WeightsError: MLflow has no such model.
        TrackingError: MLflow does not respond, or its store cannot be read.
        ConfigError: No such device.
    """
    uri = tracking_uri(runs_folder)
    with answering(uri, runs_folder):
        check(uri, writing=False)
        run_id, folders = _download(MlflowClient(tracking_uri=uri), name, uri)
    model = Model.load(str(folders.visible))
    signature, recorded = model.signature, (model.metadata or {}).get(READING)
    assert signature is not None, "registered with every model"
    _, height, width, _ = signature.inputs.inputs[0].shape
    files = folders.map(lambda folder: folder / GRAPH)
    # A run registers one pair of models, so its identifier identifies their weights.
    reading = FROM_ANYWHERE if recorded is None else ImageReading.from_dict(json.loads(recorded))
    return GraphEncoder(name, f"mlflow-{run_id}", height, width, files, resolve_device(device), reading)


def _download(client: MlflowClient, name: str, uri: str) -> tuple[str, PerModality[Path]]:
    try:
        run_id = _run_id(client, name)
        versions: list[ModelVersion] = list(client.search_model_versions(f"run_id = '{run_id}'"))
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise WeightsError(f"MLflow at {uri} has no model {name}", hint=_FORM) from error
    found = {modality: one for one in versions for modality in Modality if one.name.endswith(f"-{modality}")}
    if len(found) < len(Modality):
        raise WeightsError(f"the run of {name} has not registered an encoder at {uri}", hint=_FORM)
    # Their locations instead of `models:/...`, which MLflow resolves in the default store of the process.
    places = PerModality.build(lambda one: client.get_model_version_download_uri(found[one].name, found[one].version))
    return run_id, places.map(lambda one: Path(download_artifacts(artifact_uri=one, tracking_uri=uri)))


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
