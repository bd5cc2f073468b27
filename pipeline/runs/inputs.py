"""The inputs of a run: checked before torch, MLflow or Prefect is imported, so that a mistake is named at once."""

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.file_kinds import FOLDER, PICKLE, SAFETENSORS, STATE_DICT, TORCHSCRIPT, what_is
from pipeline.config.datasets import MANIFEST, is_table
from pipeline.config.experiment import AnyConfig
from pipeline.config.shared import DataConfig, EvaluationConfig
from pipeline.data.read import Dataset, read_dataset, spec_of
from pipeline.data.roots import describe_absent
from pipeline.errors import ConfigError, DataError, WeightsError
from pipeline.runtime.names import is_there
from pipeline.storage.run_reader import read_run

logger = logging.getLogger(__name__)

_WEIGHTS = (FOLDER, SAFETENSORS, TORCHSCRIPT, STATE_DICT, PICKLE)
_ENDINGS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".zip")


def expect_inputs(config: AnyConfig) -> None:
    """Check the data set and the weights of settings before the libraries of training are imported.

    Raises:
        ConfigError: A setting does not apply to the data set.
        DataError: The data set is missing, incomplete or unreadable.
        WeightsError: `model.weights` is a path without weights. Names of weights are not checked here.

    Cost: Listing the images, which opening the run does again.
    """
    expect_weights(config.model.weights)
    with _quietly():
        read_training_data(config.data)


def expect_inputs_of(run_folder: Path, root: Path | None, images_root: Path | None, split: int | None) -> None:
    """Check a recorded run and its data set in the same way; arguments as for `reopen_run`.

    Raises:
        CheckpointError: There is no run.
        ConfigError: It was trained on another split of RegDB.
        DataError: The data set is missing, incomplete or unreadable.
    """
    recorded = read_run(run_folder).config
    with _quietly():
        read_data(present_data(run_folder, recorded.data, root, images_root, split))


def expect_weights(weights: str) -> None:
    """Raise `WeightsError` for a path without weights; another text is a name, which open_clip knows."""
    path, found = Path(weights), what_is(Path(weights))
    if found.is_missing and (os.sep in weights or path.suffix.lower() in _ENDINGS):
        raise WeightsError(
            f"no weights at {path}",
            hint="set model.weights to an existing file or folder, to demo or random, or to a name such as openai",
        )
    if os.sep in weights and not found.is_missing and found.name not in _WEIGHTS:
        raise WeightsError(
            f"{path} cannot be read as weights: it is {found}",
            hint=found.hint or "set model.weights to a safetensors file, OpenAI's archive or a state dict of tensors",
        )


def read_data(data: DataConfig) -> Dataset:
    """List the images of the data set of a run. Raises as `pipeline.data.read.read_dataset`, and without a folder."""
    if data.root is None:
        raise DataError(
            "no data set is named",
            hint="give its folder: `vireid train PRESET --data FOLDER`, or DATA=FOLDER after `make`; "
            f"{spec_of(data.name).obtain}; `vireid demo` needs no data set",
        )
    return read_dataset(
        data.name,
        data.root,
        split=data.split,
        images_root=data.images_root,
        allow_overlap=data.allow_overlap,
        allow_partial=data.allow_partial,
    )


def read_training_data(data: DataConfig) -> Dataset:
    """The same for a run that trains: a `DataError` if there is no training image."""
    dataset = read_data(data)
    if not dataset.has_training:
        command = f"vireid evaluate RUN --data {shlex.quote(str(data.root))}"
        raise DataError(
            f"{data.root} has no rows of split train: training needs visible and infrared images",
            hint=f"add rows of split train, or measure a trained run: `{command}`",
        )
    return dataset


def log_counts(dataset: Dataset) -> None:
    """Log the number of images of each part."""
    training = dataset.training if dataset.has_training else None
    parts = {"training": training, "validation": dataset.validation, "test": dataset.test}
    for part, tables in parts.items():
        if tables is not None:
            images = tables.images
            logger.info("%s images: %d visible, %d infrared", part, len(images.visible), len(images.infrared))


def present_data(
    run_folder: Path,
    recorded: DataConfig,
    root: Path | None,
    images_root: Path | None,
    split: int | None = None,
) -> DataConfig:
    """The recorded data set in its present folders; the error for a missing one names the option for it.

    A manifest in place of a published data set becomes the data set.

    Raises:
        ConfigError: The run was trained on another split of RegDB than `split`.
        DataError: A folder is missing.
    """
    if split is not None and split != recorded.split:
        raise ConfigError(
            f"{run_folder} was trained on split {recorded.split}: it has seen test people of split {split}",
            hint="train a model for each split: `vireid train cclnet-regdb --splits 1-10`",
        )
    places = (
        ("root", root, "name the data set with --data"),
        ("images_root", images_root, "name the folder that the manifest's paths start from with --root"),
    )
    for name, now, hint in places:
        before = getattr(recorded, name)
        place = now or before
        if place is None or is_there(place):
            continue
        reason = describe_absent(place, "file or folder")
        trained = f"{run_folder} was trained on {before}, which is not there: {reason}"
        raise DataError(reason if now else trained, hint=hint)
    if root is not None and recorded.name != MANIFEST.name and is_table(root):
        kept = {name: getattr(recorded, name) for name in ("orientation", "deep_range", "unreadable")}
        return DataConfig(name=MANIFEST.name, root=root, images_root=images_root, **kept)
    return recorded.model_copy(update={name: now for name, now, _ in places if now is not None})


def evaluation_on(data: DataConfig, recorded: AnyConfig) -> EvaluationConfig:
    """The recorded evaluation; on another data set without the searches and draws of the recorded one."""
    if data.name == recorded.data.name:
        return recorded.evaluation
    fields = EvaluationConfig.model_fields
    own = {name: fields[name].default for name in ("searches", "draws", "shots", "trials")}
    return recorded.evaluation.model_copy(update=own)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the notes on a data set: they are logged when the run opens it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
