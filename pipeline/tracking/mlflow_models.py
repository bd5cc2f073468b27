"""Models in MLflow: write an encoder in MLflow's PyTorch flavour, and register it."""

import logging
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from torch import nn

from pipeline.runtime.atomic_files import TEMPORARY
from pipeline.tracking.replay import MODELS_FORM
from pipeline.tracking.store import remove_left_uploads

logger = logging.getLogger(__name__)

_NAME = "vireid.model"
_TOLERANCE = 1e-4
_FILE = "MLmodel"
READING = "vireid.reading"
"""Metadata: how image files become the pixels of the model, as JSON."""
_MAX_MODELS = 50  # the newest ones of a name; MLflow's limit for a page
SAVED = Path("data") / "encoder"
"""Folder of the encoder's files inside the model of tables."""
FORM_TAG = "vireid.form"


class ModelExportError(Exception):
    """The network cannot be exported or written."""


def save_model(
    model: nn.Module, example: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], path: Path, tags: Mapping[str, str]
) -> None:
    """Write a network as an exported graph with weights, loadable without this package.

    Args:
        model: In evaluation mode on the CPU; one tensor in, one [n, dim] out, for any n.
        example: At least two inputs; with one, the graph would accept a single input only.
        path: The new folder, with `MLmodel`, signature, input example and `data/model.pt2`.
        tags: Metadata; `vireid.model` is the registered name.

    Raises:
        ModelExportError: The network cannot be exported for any n, or the folder cannot be written.

    Cost: RN50 at 288 x 144 pixels: 14 s on a CPU core, and 156 MB.
    """
    import mlflow.pytorch  # takes seconds; needed at the end of a run only

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about weights that two layers share
            width = model(torch.from_numpy(example)).shape[1]
            mlflow.pytorch.save_model(
                model,
                str(path),
                signature=ModelSignature(
                    Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]), "pixels")]),
                    Schema([TensorSpec(np.dtype(np.float32), (-1, width))]),
                ),
                input_example=example,
                pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "torch", "numpy")],
                metadata=dict(tags),
                serialization_format="pt2",
            )
            # Code that branches on the number of images is exported for that number alone, without a warning.
            more = torch.from_numpy(np.concatenate([example, example[:1]]))
            difference = (mlflow.pytorch.load_model(str(path))(more) - model(more)).abs().max().item()
        if not difference <= _TOLERANCE:
            raise ModelExportError(f"its vectors differ by {difference:.1e} from the network's")
    except (AssertionError, MlflowException, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ModelExportError(str(error).strip().partition("\n")[0]) from error


def save_table_model(write: Callable[[Path], None], loader: str, path: Path, tags: Mapping[str, str]) -> None:
    """Write a model for tables of image paths, for `mlflow models predict` and `mlflow models serve`.

    Args:
        write: Writes the files of the model, which hold no code, into an existing folder.
        loader: The module that MLflow loads it by; this package must be installed where it is served.
        path: The new folder.
        tags: As for `save_model`.

    Raises:
        ModelExportError: The folder cannot be written.
    """
    import mlflow.pyfunc

    beside = path.with_name(f"data-{path.name}")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of a killed process
        data = beside / SAVED.name
        data.mkdir(parents=True)
        write(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the missing input example, which would be a path
            mlflow.pyfunc.save_model(
                str(path),
                loader_module=loader,
                data_path=str(data),
                signature=ModelSignature(Schema([ColSpec(DataType.string, name) for name in ("path", "modality")])),
                pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "torch", "numpy", "pillow")],
                metadata={**tags, FORM_TAG: str(MODELS_FORM)},
            )
    except (MlflowException, OSError, ValueError) as error:
        raise ModelExportError(str(error).strip().partition("\n")[0]) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def register_model(client: MlflowClient, experiment_id: str, run_id: str, path: Path) -> None:
    """Log a model that `save_model` wrote, and register it as the newest version of its name, once per run.

    A logged model that a killed process has left is completed; others that are not complete are deleted.
    """
    model = Model.load(str(path))
    tags: dict[str, str] = dict(model.metadata or {})
    name = tags[_NAME]
    found = client.search_logged_models([experiment_id], f"name = '{name}'", max_results=_MAX_MODELS)
    form = tags.get(FORM_TAG)
    same = (one for one in found if one.source_run_id == run_id and one.tags.get(FORM_TAG) == form)
    of_run = sorted(same, key=lambda one: str(one.status) != "READY")
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if any(version.tags.get(FORM_TAG) == form for version in versions):
        _delete_unfinished(client, of_run)
        return
    logged = (
        of_run[0] if of_run else client.create_logged_model(experiment_id, name, run_id, tags, model_type="encoder")
    )
    if str(logged.status) != "READY":
        model.model_id, model.run_id = logged.model_id, run_id
        model.save(str(path / (_FILE + TEMPORARY)))
        (path / (_FILE + TEMPORARY)).replace(path / _FILE)
        remove_left_uploads(logged.artifact_location)
        client.log_model_artifacts(logged.model_id, str(path))
        client.finalize_logged_model(logged.model_id, "READY")
    outputs = client.get_run(run_id).outputs
    if outputs is None or logged.model_id not in {one.model_id for one in outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    _delete_unfinished(client, of_run[1:])
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Its location instead of `models:/...`, which MLflow would resolve in the default store of the process.
    made = client.create_model_version(name, logged.artifact_location, run_id, tags, model_id=logged.model_id)
    logger.info("registered in MLflow: models:/%s/%s", name, made.version)


def _delete_unfinished(client: MlflowClient, models: Sequence[LoggedModel]) -> None:
    for one in models:
        if str(one.status) != "READY":
            client.delete_logged_model(one.model_id)


def _release(package: str) -> str:
    """The version without the build tag, which package indexes do not know."""
    return re.sub(r"\+.*", "", version(package))
