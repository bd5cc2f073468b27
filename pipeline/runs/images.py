"""The decoded images of a run, without those that cannot be read, and the check that a run keeps its images."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config.experiment import AnyConfig
from pipeline.config.shared import DataConfig
from pipeline.data.dataset import Dataset, SplitTables, reading_of, verified_store
from pipeline.data.image_faults import fault_lines
from pipeline.data.image_files import ImageReading
from pipeline.data.store import ImageStore, open_store, store_key
from pipeline.errors import CheckpointError, VireidError
from pipeline.runs.evaluator import refuse_unmeasurable
from pipeline.runs.inputs import read_data
from pipeline.runtime.distributed import Processes
from pipeline.storage.layout import ENVIRONMENT, FORGOTTEN
from pipeline.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

IMAGES = "images"
"""Folder of decoded images in the folder of runs."""

_RESTORE = "remove it: the next start writes it again"


@dataclass(frozen=True, slots=True)
class OpenedImages:
    """A data set without the images that cannot be read, and its decoded images. `skipped`: reasons by path."""

    dataset: Dataset
    store: ImageStore

    @property
    def skipped(self) -> dict[str, str]:
        """The reason of each image that is skipped, by its path, as a run records it."""
        return {one.path: one.reason for one in self.store.unreadable}


def open_images(config: AnyConfig, dataset: Dataset, folder: Path, processes: Processes) -> OpenedImages:
    """Decode the images into `folder`, or find them decoded there; `data.unreadable` decides about unreadable ones.

    One store serves training, validation and test. One process of each machine compares the decoded images with their
    digests.

    Raises:
        DataError: See `open_store`; or the other images cannot be trained on or measured.
    """
    open_checked = verified_store if processes.local_rank == 0 else open_store
    store = open_checked(
        dataset.images,
        height=config.images.height,
        width=config.images.width,
        cache_folder=folder,
        workers=config.execution.decode_workers,
        reading=_reading(config),
        unreadable=config.data.unreadable,
    )
    if not store.unreadable:
        return OpenedImages(dataset, store)
    total, lines = sum(dataset.images.map(len)), "; ".join(fault_lines(store.unreadable))
    logger.warning("%d of %s images cannot be read and are skipped: %s", len(store.unreadable), f"{total:,}", lines)
    usable = dataset.without(frozenset(one.path for one in store.unreadable))
    refuse_unmeasurable(usable, config)
    return OpenedImages(usable, store)


@contextmanager
def images_folder(config: AnyConfig, dataset: Dataset) -> Iterator[Path]:
    """The decoded images beside the run; a temporary folder if they are absent and cannot be written there."""
    folder, size = config.execution.runs_folder / IMAGES, config.images
    key = store_key(dataset.images, height=size.height, width=size.width, reading=_reading(config))
    if (folder / key).is_dir() or os.access(folder if folder.exists() else folder.parent, os.W_OK):
        yield folder
        return
    with TemporaryDirectory(prefix="vireid-") as temporary:
        logger.info("%s cannot be written: the images are decoded into a temporary folder", folder)
        yield Path(temporary)


def check_images(folder: RunFolder, dataset: Dataset, *, measuring: bool = False) -> None:
    """Refuse other images than those of the run's first start.

    A run that is only measured may have other test images where it was started without any, or where the data set is
    for tests only.
    """
    before, now = _recorded(folder, "data"), dataset.fingerprint
    if measuring and before is not None:
        compared = [name for name in now if name in before] if "training" in now else []
        before, now = ({name: one[name] for name in compared} for one in (before, now))
    if before is not None and before != now:
        part = next(name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name))
        other = (
            "to measure it on other images, name a manifest with rows of split test only"
            if measuring
            else "a new run needs another name (--set name=...)"
        )
        raise CheckpointError(
            f"{folder.path} was made with other {part} images than those of {dataset.root}",
            hint=f"give the images that the run was started with; {other}",
        )


def compared_with_training(dataset: Dataset, recorded: DataConfig) -> Dataset:
    """A data set of test images only, marked `overlap` if a run was trained on some of these files.

    `recorded` is the run's own data set; if it is not there, nothing is compared.
    """
    if dataset.has_training:
        return dataset
    try:
        trained = _files(read_data(recorded).training)
    except VireidError as error:
        logger.info("whether the run was trained on these images is unknown: %s", error.message)
        return dataset
    common = trained & frozenset().union(*(_files(one) for one in (dataset.validation, dataset.test) if one))
    if not common:
        return dataset
    logger.warning("the run was trained on %d of these images, first: %s", len(common), min(common))
    return replace(dataset, overlap=True)


def _files(tables: SplitTables) -> frozenset[str]:
    """The files of images, wherever links lead."""
    return frozenset(os.path.realpath(table.root / path) for table in tables.images for path in table.paths)


def check_skipped(folder: RunFolder, opened: OpenedImages) -> None:
    """Refuse to resume a run whose unreadable images have changed: its training images would be others.

    A path that was replaced by a number, see `FORGOTTEN`, may be that of any image.
    """
    before = _recorded(folder, "skipped")
    if before is None:
        return
    known = {path for path in before if not path.startswith(FORGOTTEN)}
    new = opened.skipped.keys() - known
    if known <= opened.skipped.keys() and len(new) == len(before) - len(known):
        return
    changed = [*sorted((known - opened.skipped.keys()) | new), "a forgotten image"]
    raise CheckpointError(
        f"{folder.path} was started without {len(before)} images that could not be read; now they are "
        f"{len(opened.skipped)}, first difference: {changed[0]}",
        hint="restore these files as they were, or start a new run (--set name=...)",
    )


def _recorded(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """A part of the recorded environment; None if the run has none yet."""
    found = (folder.read_environment() or {}).get(name)
    if not isinstance(found, (dict, type(None))):
        raise CheckpointError(f"{folder.path / ENVIRONMENT} is damaged: {name}", hint=_RESTORE)
    return found


def _reading(config: AnyConfig) -> ImageReading:
    data = config.data
    return reading_of(data.name, orientation=data.orientation, deep_range=data.deep_range)
