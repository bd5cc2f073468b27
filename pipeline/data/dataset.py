"""Reading a data set by its name. It holds true identities: training code must not import this module."""

from collections.abc import Sequence
from pathlib import Path

from models.modality import PerModality
from pipeline.config.datasets import Split
from pipeline.data.check import DatasetCheck
from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.store import ImageStore
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError
from pipeline.runtime.seeds import numpy_generator

__all__ = [
    "Dataset", "SplitTables", "check_dataset", "held_out_images", "read_dataset", "spec_of", "training_images",
]  # fmt: skip


def spec_of(name: str, datasets: Sequence[DatasetSpec] = DATASETS) -> DatasetSpec:
    """The data set of a name.

    Raises:
        ConfigError: There is none.
    """
    for spec in datasets:
        if spec.name == name:
            return spec
    raise ConfigError(f"there is no data set {name!r}", hint=f"choose from: {', '.join(one.name for one in datasets)}")


def read_dataset(
    name: str,
    root: Path,
    *,
    split: Split | None = None,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    allow_partial: bool = False,
    datasets: Sequence[DatasetSpec] = DATASETS,
) -> Dataset:
    """List the images of a data set and check them against what is known about it.

    No image is opened and nothing is written; `pipeline.data.store.open_store` decodes.

    Args:
        name: The data set: `sysu`, `regdb`, `llcm` or `manifest`.
        root: Its folder, or the manifest file.
        split: Which published split; None takes the usual one, where there is a usual one.
        images_root: Where a manifest's paths start; its own folder when None.
        allow_overlap: Let a manifest name a person in training and in test; the result is then marked `overlap`.
        allow_partial: Go on when counts differ from the expected ones; the result is then marked `partial`.
        datasets: The data sets to choose from.

    Returns:
        Tables of the training, validation and test images.

    Raises:
        ConfigError: No such data set or split, or an option does not apply to it.
        DataError: The folder is something else, or is not complete.

    Cost:
        0.7 s at the size of SYSU-MM01 (measured) once the folder listings are in memory.
    """
    spec = spec_of(name, datasets)
    given = spec.applicable(
        {"images_root": images_root, "allow_overlap": allow_overlap, "allow_partial": allow_partial}
    )
    if spec.options.splits:
        given["split"] = spec.options.default_split if split is None else split
    elif split is not None:
        raise ConfigError(f"data set {name} has one split only, not {split!r}", hint="leave the split out")
    return spec.read(root, **given)


def check_dataset(
    name: str,
    root: Path,
    *,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    datasets: Sequence[DatasetSpec] = DATASETS,
) -> DatasetCheck:
    """Compare a data set with what is known about it; no image is opened.

    Args:
        name: As for `read_dataset`, like the others.
        root: The data set's folder, or the manifest file.
        images_root: Where a manifest's paths start.
        allow_overlap: Let a manifest name a person in training and in test.
        datasets: The data sets to choose from.

    Raises:
        ConfigError: No such data set, or an option does not apply to it.
        DataError: The folder is something else altogether.
    """
    spec = spec_of(name, datasets)
    return spec.check(root, **spec.applicable({"images_root": images_root, "allow_overlap": allow_overlap}))


def training_images(dataset: Dataset, store: ImageStore, seed: int) -> PerModality[TrainingImages]:
    """The training images, in a random order that the seed decides: folder order spells identity."""
    return dataset.training.images.map_with(
        lambda table, pixels: TrainingImages.shuffled(
            table, pixels, dataset.stored_rows(table), numpy_generator(seed, "data", table.modality)
        ),
        store.arrays,
    )


def held_out_images(dataset: Dataset, tables: SplitTables, store: ImageStore) -> PerModality[TestImages]:
    """The images of `dataset.test` or `dataset.validation`, in the order of their tables."""
    return tables.images.map_with(
        lambda table, pixels: TestImages.in_order(table, pixels, dataset.stored_rows(table)), store.arrays
    )
