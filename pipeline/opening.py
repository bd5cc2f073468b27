"""How a run is opened: a new one, one that was interrupted, or a finished one to be measured again."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from models.clip import LoadedClip, WeightsLoadError, load_clip
from models.modality import PerModality
from pipeline.config import DataConfig, ExperimentConfig
from pipeline.data.dataset import Dataset, read_dataset
from pipeline.data.images import ImageTable, TestImages, TrainingImages
from pipeline.data.store import ImageStore, open_store
from pipeline.device import resolve_device
from pipeline.errors import CheckpointError, DataError, WeightsError
from pipeline.experiment import Run
from pipeline.presets import validate_config
from pipeline.run_folder import RunFolder
from pipeline.seeds import numpy_generator
from pipeline.tracking import MlflowTracker, SilentTracker, Tracker

logger = logging.getLogger(__name__)


@contextmanager
def open_run(config: ExperimentConfig) -> Iterator[Run]:
    """Open the run of a configuration: the same one always finds the same folder, and goes on where it stands.

    Raises:
        ConfigError: The device does not exist here.
        DataError: The data set is missing, incomplete or unreadable.
        WeightsError: The weights cannot be loaded.
        CheckpointError: The folder is in use, or holds something else.
    """
    device = resolve_device(config.execution.device)
    dataset = _read_data(config.data)
    clip = _load_weights(config)
    with RunFolder.open(run_path(config), config.record(), config.digest()) as folder:
        tracker = _tracker(config, folder)
        try:
            run = Run(config, folder, dataset, _open_images(config, dataset), clip, device, tracker)
            run.begin()
            yield run
        except KeyboardInterrupt:
            tracker.finish("KILLED")
            raise
        except BaseException:
            tracker.finish("FAILED")
            raise


@contextmanager
def reopen_run(run_folder: Path, *, data_root: Path | None, device: str) -> Iterator[Run]:
    """Open an existing run to measure it; nothing is tracked.

    Raises:
        CheckpointError: The folder holds no run, or one without a finished round.
    """
    with RunFolder.reopen(run_folder) as folder:
        recorded = validate_config(folder.config)
        data = recorded.data if data_root is None else recorded.data.model_copy(update={"root": data_root})
        execution = recorded.execution.model_copy(
            update={"device": device, "runs_folder": run_folder.parent, "tracking": False}
        )
        config = recorded.model_copy(update={"data": data, "execution": execution})
        dataset = _read_data(data)
        images = _open_images(config, dataset)
        run = Run(config, folder, dataset, images, _load_weights(config), resolve_device(device), SilentTracker())
        if run.state.completed == 0:
            raise CheckpointError(
                f"{run_folder} has no finished round yet", hint="wait for its first round, or start it again"
            )
        yield run


def run_path(config: ExperimentConfig) -> Path:
    """Where the run of a configuration lives."""
    return config.execution.runs_folder / f"{config.name}-s{config.seed}-{config.digest()[:8]}"


def _read_data(data: DataConfig) -> Dataset:
    if data.root is None:
        raise DataError(
            "no data set is named",
            hint="give its folder: `vireid train PRESET --data FOLDER`, or `make unsupervised-sysu DATA=FOLDER`; "
            "SYSU-MM01 is obtained from its authors (wuancong/SYSU-MM01, signed agreement); "
            "`vireid demo` needs no data set",
        )
    dataset = read_dataset(data.name, data.root, split=data.split, allow_partial=data.allow_partial)
    for part, tables in (("training", dataset.training), ("test", dataset.test)):
        logger.info("%s images: %d visible, %d infrared", part, len(tables.images.visible), len(tables.images.infrared))
    return dataset


def _open_images(
    config: ExperimentConfig, dataset: Dataset
) -> tuple[PerModality[TrainingImages], PerModality[TestImages]]:
    """Decode the images, or find them decoded; training gets them in an order that says nothing about people."""

    def decoded(tables: PerModality[ImageTable]) -> ImageStore:
        return open_store(
            tables,
            height=config.images.height,
            width=config.images.width,
            cache_folder=config.execution.runs_folder / "images",
            workers=config.execution.decode_workers,
        )

    def shuffle(table: ImageTable, pixels: UInt8[np.ndarray, "n height width 3"]) -> TrainingImages:
        return TrainingImages.shuffled(table, pixels, numpy_generator(config.seed, "data", table.modality))

    training, test = dataset.training.images, dataset.test.images
    return (
        training.map_with(shuffle, decoded(training).arrays),
        test.map_with(TestImages.in_order, decoded(test).arrays),
    )


def _load_weights(config: ExperimentConfig) -> LoadedClip:
    try:
        clip = load_clip(config.model.architecture, config.model.weights, seed=config.seed)
    except WeightsLoadError as error:
        raise WeightsError(str(error), hint=error.hint) from error
    logger.info("weights: %s (%s, %s)", clip.origin.kind, clip.origin.model, clip.origin.digest)
    return clip


def _tracker(config: ExperimentConfig, folder: RunFolder) -> Tracker:
    if not config.execution.tracking:
        return SilentTracker()
    return MlflowTracker(config.execution.runs_folder, folder)
