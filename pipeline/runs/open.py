"""How a run is opened: a new one, one that was interrupted, or a finished one to be measured again."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.clip import LoadedClip, WeightsLoadError, load_clip
from models.imagenet import RESNET50, load_imagenet
from pipeline.config.csdn import CsdnConfig
from pipeline.config.eees import EeesConfig
from pipeline.config.experiment import AnyConfig, digest_of, record_of, with_trial
from pipeline.config.presets import validate_config
from pipeline.config.shared import DataConfig, ExperimentConfig
from pipeline.data.dataset import Dataset, read_dataset
from pipeline.errors import CheckpointError, ConfigError, DataError, WeightsError
from pipeline.methods.cclnet.method import ClusterMethod
from pipeline.methods.csdn.method import PersonMethod
from pipeline.methods.eees.method import CaptionMethod
from pipeline.runs.images import open_images
from pipeline.runs.record import RunRecord
from pipeline.runs.run import Method, Run
from pipeline.runtime.device import resolve_device, resolve_precision, using_device
from pipeline.runtime.distributed import ALONE, Processes
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.system_metrics import available_monitors
from pipeline.tracking.tracker import SilentTracker, Tracker, UninterruptedTracker

logger = logging.getLogger(__name__)

_OBTAIN = {
    "sysu": "SYSU-MM01 is obtained from its authors (wuancong/SYSU-MM01, signed agreement)",
    "regdb": "RegDB is obtained from its authors on request",
    "llcm": "LLCM is obtained from its authors (ZYK100/LLCM, signed agreement)",
    "manifest": "images of your own are described by a manifest, which `vireid data manifest` writes",
}


@contextmanager
def open_run(config: AnyConfig) -> Iterator[Run[Any, Any]]:
    """Open the run of a configuration: the same one always finds the same folder, and goes on where it stands.

    One of several processes opens it together with the others: the first holds the folder, the others follow.

    Raises:
        ConfigError: The device does not exist here.
        DataError: The data set is missing, incomplete or unreadable.
        WeightsError: The weights cannot be loaded.
        CheckpointError: The folder is in use, holds something else, or a run that was made with other images.
        TrackingError: MLflow does not answer before anything is trained.
    """
    processes = Processes.here()
    device = resolve_device(config.execution.device, processes.local_rank, processes.local_count)
    precision = resolve_precision(config.execution.precision, device)
    with using_device(device, precision, processes.local_count):
        yield from _opened(config, device, processes)


def _opened(config: AnyConfig, device: torch.device, processes: Processes) -> Iterator[Run[Any, Any]]:
    dataset = _read_data(config.data)
    clip, method = _load_weights(config), method_of(config)
    if not processes.is_first:
        yield Run(method, config, dataset, open_images(config, dataset), clip, device, None, processes)
        return
    with RunFolder.open(run_path(config), record_of(config), digest_of(config)) as folder:
        _check_images(folder, dataset)
        execution = config.execution
        record = RunRecord(folder, _tracker(config, folder), execution.keep_checkpoints, execution.log_checkpoints)
        try:
            run = Run(method, config, dataset, open_images(config, dataset), clip, device, record, processes)
            made_with = {"device": str(device), "processes": processes.count, "precision": run.precision}
            made_with |= {"weights": asdict(clip.origin), "data": dataset.fingerprint}
            record.begin(run.state, record_of(config), made_with)
            yield run
        except Exception:
            record.tracker.finish("FAILED")
            raise
        except BaseException:
            # Not an error: Ctrl-C, a signal that ends the process, or Prefect's word for a run that is cancelled.
            record.tracker.finish("KILLED")
            raise


@contextmanager
def reopen_run(
    run_folder: Path, *, data_root: Path | None, device: str, trial: int | None = None
) -> Iterator[Run[Any, Any]]:
    """Open an existing run to measure it; nothing is tracked.

    Raises:
        ConfigError: It was trained on another split of RegDB than `trial`.
        CheckpointError: The folder holds no run, one without a finished round, or one made with other images.
    """
    with RunFolder.reopen(run_folder) as folder:
        recorded = validate_config(folder.config)
        if trial is not None and trial != recorded.data.trial:
            raise ConfigError(
                f"{run_folder} was trained on split {recorded.data.trial}: it has seen test people of split {trial}",
                hint="train a model for each split: `vireid train cclnet-regdb --trials 1-10`",
            )
        data = recorded.data if data_root is None else recorded.data.model_copy(update={"root": data_root})
        place = resolve_device(device)
        changes = {"device": device, "runs_folder": run_folder.parent, "tracking": False}
        if place.type == "cpu":
            changes["precision"] = "auto"  # whatever the GPU that trained it computed in
        execution = recorded.execution.model_copy(update=changes)
        config = recorded.model_copy(update={"data": data, "execution": execution})
        dataset = _read_data(data)
        _check_images(folder, dataset)
        images, record, method = open_images(config, dataset), RunRecord(folder, SilentTracker()), method_of(config)
        with using_device(place, resolve_precision(execution.precision, place)):
            run = Run(method, config, dataset, images, _load_weights(config), place, record, ALONE)
            if run.state.completed == 0:
                raise CheckpointError(
                    f"{run_folder} has no finished round yet", hint="wait for its first round, or start it again"
                )
            yield run


def run_path(config: AnyConfig) -> Path:
    """Where the run of a configuration lives."""
    split = "" if config.data.trial is None else f"-t{config.data.trial}"
    return config.execution.runs_folder / f"{config.name}-s{config.seed}{split}-{digest_of(config)[:8]}"


def trials_path(config: AnyConfig) -> Path:
    """Where the average over the splits of RegDB is written: beside the runs, one file for all splits."""
    everything = with_trial(config, None)
    return config.execution.runs_folder / f"{config.name}-s{config.seed}-{digest_of(everything)[:8]}-trials.json"


def method_of(config: AnyConfig) -> Method[Any, Any]:
    """What a run of this configuration leaves to its method."""
    match config:
        case CsdnConfig():
            return PersonMethod()
        case EeesConfig():
            return CaptionMethod()
        case ExperimentConfig():
            return ClusterMethod()


def _read_data(data: DataConfig) -> Dataset:
    if data.root is None:
        raise DataError(
            "no data set is named",
            hint="give its folder: `vireid train PRESET --data FOLDER`, or DATA=FOLDER after `make`; "
            f"{_OBTAIN[data.name]}; `vireid demo` needs no data set",
        )
    dataset = read_dataset(
        data.name,
        data.root,
        split=data.split,
        trial=data.trial,
        images_root=data.images_root,
        allow_overlap=data.allow_overlap,
        allow_partial=data.allow_partial,
    )
    parts = {"training": dataset.training, "validation": dataset.validation, "test": dataset.test}
    for part, tables in parts.items():
        if tables is not None:
            images = tables.images
            logger.info("%s images: %d visible, %d infrared", part, len(images.visible), len(images.infrared))
    return dataset


def _check_images(folder: RunFolder, dataset: Dataset) -> None:
    """Refuse other images than those of the run's first start: their results would be filed together."""
    before = (folder.read_environment() or {}).get("data")
    if before is not None and before != dataset.fingerprint:
        part = next(name for name, digest in dataset.fingerprint.items() if before.get(name) != digest)
        raise CheckpointError(
            f"{folder.path} was made with other {part} images than those of {dataset.root}",
            hint="give the images that the run was started with; a new run needs another name (--set name=...)",
        )


def _load_weights(config: AnyConfig) -> LoadedClip:
    try:
        clip = (
            load_imagenet(config.model.weights, seed=config.seed)
            if config.model.architecture == RESNET50
            else load_clip(config.model.architecture, config.model.weights, seed=config.seed)
        )
    except WeightsLoadError as error:
        raise WeightsError(str(error), hint=error.hint) from error
    logger.info("weights: %s (%s, %s)", clip.origin.kind, clip.origin.model, clip.origin.digest)
    return clip


def _tracker(config: AnyConfig, folder: RunFolder) -> Tracker:
    if not config.execution.tracking:
        return SilentTracker()
    monitors = available_monitors() if config.execution.system_metrics else []
    tracker = MlflowTracker(config.execution.runs_folder, folder, monitors=monitors)
    # A server may take long to answer, and Ctrl-C is not to wait for that; it locks nothing here.
    return UninterruptedTracker(tracker) if tracker.uri.startswith("sqlite:") else tracker
