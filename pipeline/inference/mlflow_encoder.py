"""Models that a run registered in MLflow, used without the run folder."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import WeightsError
from pipeline.inference.encoder import RunEncoder
from pipeline.inference.saved_encoder import read_saved_encoder, registered_as_graphs
from pipeline.runtime.device import PrecisionSetting
from pipeline.tracking.mlflow_models import FORM_TAG, SAVED
from pipeline.tracking.places import present_place
from pipeline.tracking.store import answering, check, sqlite_file, tracking_uri

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_FORM = "name models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID; MLFLOW_TRACKING_URI if they are not in runs/"


def read_registered_encoder(
    name: str,
    device: str = "auto",
    precision: PrecisionSetting | None = None,
    runs_folder: Path = Path("runs"),
) -> RunEncoder:
    """Download the encoder that a run registered: its weights as safetensors. Graphs are not opened.

    * `name`: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME` (newest) or `runs:/RUN_ID`. The model of one
      modality also finds the other of the same run.
    * `precision`: The run's own when None.
    * `runs_folder`: Holds `mlflow.db`, unless MLFLOW_TRACKING_URI is set.

    Raises:
        WeightsError: MLflow has no such model, or an older version registered it.
        TrackingError: MLflow does not respond, or its store cannot be read.
        ConfigError: No such device, or bfloat16 on a CPU.
    """
    uri = tracking_uri(runs_folder)
    with answering(uri, runs_folder):
        check(uri, writing=False)
        folder = _download(MlflowClient(tracking_uri=uri), name, uri)
    return read_saved_encoder(folder / SAVED, name, device, precision)


def _download(client: MlflowClient, name: str, uri: str) -> Path:
    try:
        run_id = _run_id(client, name)
        versions: list[ModelVersion] = list(client.search_model_versions(f"run_id = '{run_id}'"))
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise WeightsError(f"MLflow at {uri} has no model {name}", hint=_FORM) from error
    if not versions:
        raise WeightsError(f"the run of {name} has not registered an encoder at {uri}", hint=_FORM)
    saved = [version for version in versions if FORM_TAG in version.tags]
    if not saved:
        raise registered_as_graphs(name)
    newest = max(saved, key=lambda version: int(version.version))
    # Its location instead of `models:/...`, which MLflow resolves in the default store of the process.
    place, file = client.get_model_version_download_uri(newest.name, newest.version), sqlite_file(uri)
    place = place if file is None else present_place(file, place)
    return Path(download_artifacts(artifact_uri=place, tracking_uri=uri))


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
