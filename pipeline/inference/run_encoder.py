"""The encoder of a run, without its data set, its optimiser or its initial weights."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.clip import WeightsLoadError, load_clip
from models.encoder import DualStemEncoder
from models.imagenet import RESNET50, load_imagenet
from pipeline.config.datasets import DeepRange, Orientation
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import validate_config
from pipeline.data.image_files import ImageReading, search_reading
from pipeline.errors import CheckpointError, WeightsError
from pipeline.inference.encoder import RunEncoder, TrainedEncoder
from pipeline.methods import method_of
from pipeline.runtime.device import PrecisionSetting, recorded_precision, resolve_device, resolve_precision
from pipeline.storage import layout as run_files
from pipeline.storage.origin import is_synthetic
from pipeline.storage.run_folder import read_checkpoint

logger = logging.getLogger(__name__)

_NO_RUN = "name a run folder, its checkpoint.pt, or a model of MLflow such as models:/NAME/1; `vireid runs` lists runs"


def open_encoder(
    name: str,
    device: str = "auto",
    precision: PrecisionSetting | None = None,
    orientation: Orientation | None = None,
    deep_range: DeepRange | None = None,
) -> TrainedEncoder:
    """Open the encoder that a user names.

    Args:
        name: A run folder, a checkpoint in it, or an MLflow address as for `read_registered_encoder`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: The run's own when None.
        orientation: Whether orientation tags are applied; the run's own when None.
        deep_range: Limits of images of more than 8 bits; the run's own when None.
    """
    encoder = _open(name, device, precision)
    reading = encoder.reading
    return replace(encoder, reading=ImageReading(orientation or reading.orientation, deep_range or reading.deep_range))


def _open(name: str, device: str, precision: PrecisionSetting | None) -> RunEncoder:
    if not name.startswith(("models:/", "runs:/")):
        return read_run_encoder(Path(name), device, precision)
    from pipeline.inference.mlflow_encoder import read_registered_encoder  # MLflow takes seconds to import

    return read_registered_encoder(name, device, precision)


def read_run_encoder(path: Path, device: str = "auto", precision: PrecisionSetting | None = None) -> RunEncoder:
    """Read the encoder of a run; the folder is neither locked nor written to, so the run may still be training.

    * `path`: A run folder, for the run's result; or a checkpoint in it, for that round.
    * `device`: `auto`, `cpu`, `cuda` or `cuda:N`.
    * `precision`: Of the network; the run's `execution.precision` when None, float32 on a CPU.

    Raises:
        CheckpointError: No run, no finished round, or a damaged checkpoint.
        WeightsError: The architecture cannot be built here.
        ConfigError: No such device, or bfloat16 on a CPU.

    Cost: one read of the checkpoint, which also holds the optimiser: 0.6 GB for RN50.
    """
    folder = path
    if path.is_file():
        folder = path.parent.parent if path.parent.name == run_files.CHECKPOINTS else path.parent
    record = run_files.read_record(folder) if folder.is_dir() else None
    if record is None:
        raise CheckpointError(f"{path} holds no run", hint=_NO_RUN)
    checkpoint = read_checkpoint(path if path.is_file() else folder / run_files.CHECKPOINT)
    round_, weights = (0, {}) if checkpoint is None else _result(checkpoint, path, last=path.is_file())
    if round_ == 0:
        raise CheckpointError(f"{path} has no finished round yet", hint="wait for its first round, or start it again")
    config = validate_config(record["config"])
    place = resolve_device(device)
    reading = search_reading(config.data.orientation, config.data.deep_range)
    computed_in = (
        recorded_precision(config.execution.precision, place)
        if precision is None
        else resolve_precision(precision, place)
    )
    encoder = empty_encoder(config)
    try:
        encoder.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"the weights of {path} do not fit {config.model.architecture}: {str(error).splitlines()[0]}",
            hint=f"the run took its architecture from {config.model.weights}: restore it there",
        ) from error
    logger.info("%s: %s, after round %d", folder.name, config.method, round_)
    network, synthetic = encoder.to(place).eval(), is_synthetic(folder)
    return RunEncoder(folder.resolve().name, network, config, round_, place, computed_in, reading, synthetic)


def _result(checkpoint: dict[str, Any], path: Path, *, last: bool) -> tuple[int, dict[str, torch.Tensor]]:
    """Round and weights of the selected round, or of the `last` one."""
    selected = None if last else checkpoint.get("selected")
    part = checkpoint if selected is None else selected
    number, weights = (
        (part.get("completed" if selected is None else "round"), part.get("encoder"))
        if isinstance(part, dict)
        else (None, None)
    )
    if (
        not isinstance(number, int)
        or not isinstance(weights, dict)
        or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
    ):
        raise CheckpointError(f"{path} holds no encoder of a run", hint="restore its checkpoint from a copy")
    return number, weights


def empty_encoder(config: AnyConfig) -> DualStemEncoder:
    """The run's network with arbitrary weights, because the initial ones may not exist here.

    Raises:
        WeightsError: Its architecture cannot be built here.
    """
    model = config.model
    try:
        if model.architecture == RESNET50:
            clip = load_imagenet("random")
        else:
            brings_architecture = model.weights == "demo" or Path(model.weights).is_dir()
            clip = load_clip(model.architecture, model.weights if brings_architecture else "random")
    except WeightsLoadError as error:
        raise WeightsError(str(error), hint=error.hint) from error
    return method_of(config).new_encoder(config, clip)
