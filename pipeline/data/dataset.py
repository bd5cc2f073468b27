"""Read and check a data set by its name. It contains true identities: training code must not import this module."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.modality import PerModality
from pipeline.config.datasets import DeepRange, OnUnreadable, Orientation
from pipeline.data.check import MAX_OFFENDERS, CheckRow, DatasetCheck
from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.decoding import inspect_images
from pipeline.data.image_faults import fault_hint, fault_lines
from pipeline.data.image_files import AS_STORED, ImageReading, adjustment_lines
from pipeline.data.images import ImageTable, TestImages, TrainingImages
from pipeline.data.read import read_dataset, refuse_other_layout, spec_of
from pipeline.data.store import ImageStore, damaged_arrays, open_store, store_key, stores_below
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import DataError
from pipeline.runtime.seeds import numpy_generator

__all__ = [
    "Dataset", "SplitTables", "check_dataset", "damaged_copies", "held_out_images", "inspect_dataset", "read_dataset",
    "reading_of", "spec_of", "training_images", "verified_store",
]  # fmt: skip


def reading_of(
    name: str,
    *,
    orientation: Orientation | None = None,
    deep_range: DeepRange = "image",
    datasets: Sequence[DatasetSpec] = DATASETS,
) -> ImageReading:
    """How the image files of a data set are read; arguments are those of section `data` of the settings."""
    return ImageReading(orientation or spec_of(name, datasets).options.orientation, deep_range)


def check_dataset(
    name: str,
    root: Path,
    *,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    datasets: Sequence[DatasetSpec] = DATASETS,
) -> DatasetCheck:
    """Compare a data set with its known counts; no image is opened. Arguments as for `read_dataset`."""
    spec = spec_of(name, datasets)
    refuse_other_layout(spec, root, datasets)
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


def inspect_dataset(
    name: str,
    root: Path,
    *,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    decode: bool = True,
    cache_folder: Path | None = None,
    workers: int | None = None,
    datasets: Sequence[DatasetSpec] = DATASETS,
) -> DatasetCheck:
    """Compare a data set with its known counts, decode every image, and compare decoded copies with their digests.

    Further arguments as for `read_dataset`. `decode=False` skips decoding; `cache_folder` contains the decoded copies,
    None skips them; `workers` is the number of decoding threads, one a core by default.

    Raises:
        ConfigError: No such data set.
        DataError: The folder has another layout.

    Cost: Decoding dominates: about a minute for the 45,000 images of SYSU-MM01 on two cores.
    """
    spec = spec_of(name, datasets)
    check = check_dataset(name, root, images_root=images_root, allow_overlap=allow_overlap, datasets=datasets)
    if not decode and cache_folder is None:
        return check
    try:
        images = read_dataset(
            name,
            root,
            split=spec.any_split,
            images_root=images_root,
            allow_overlap=allow_overlap,
            allow_partial=spec.reads("allow_partial"),
            datasets=datasets,
        ).images
    except DataError as error:
        if check.passed:
            raise
        return replace(check, notes=(*check.notes, f"no image was read: {error.message}"))
    if decode:
        found = inspect_images(images, reading_of(name, datasets=datasets), workers=workers)
        advice = f"{fault_hint(found.unreadable)}, or train without them: data.unreadable=skip"
        check = _with_row(
            replace(check, notes=(*check.notes, *adjustment_lines(found.adjustments, found.total))),
            CheckRow("images that cannot be decoded", 0, len(found.unreadable), advice),
            fault_lines(found.unreadable),
        )
    if cache_folder is not None:
        damaged = damaged_copies(images, cache_folder)
        advice = "remove these folders; the images are then decoded again"
        check = _with_row(
            check,
            CheckRow("damaged arrays of decoded images", 0, len(damaged), advice),
            list(map(str, damaged[:MAX_OFFENDERS])),
        )
    return check


def damaged_copies(images: PerModality[ImageTable], cache_folder: Path) -> tuple[Path, ...]:
    """The array files of decoded copies, of any size, whose bytes have changed since they were written."""
    damaged: list[Path] = []
    found = 0
    for folder, index in stores_below(cache_folder):
        height, width, reading = index.height, index.width, index.reading
        if folder.name == store_key(images, height=height, width=width, reading=reading):
            found += 1
            store = open_store(
                images, height=height, width=width, cache_folder=cache_folder, reading=reading, unreadable="skip"
            )
            damaged += damaged_arrays(store)
    if found == 0:
        raise DataError(
            f"{cache_folder} holds no decoded copy of these images",
            hint="make one with `vireid data index`, or name the folder `images` of the runs folder",
        )
    return tuple(damaged)


def verified_store(
    images: PerModality[ImageTable],
    *,
    height: int,
    width: int,
    cache_folder: Path,
    workers: int | None = None,
    reading: ImageReading = AS_STORED,
    unreadable: OnUnreadable = "refuse",
) -> ImageStore:
    """Open the decoded images as `open_store`, and compare the arrays with their digests."""
    store = open_store(
        images,
        height=height,
        width=width,
        cache_folder=cache_folder,
        workers=workers,
        reading=reading,
        unreadable=unreadable,
    )
    damaged = damaged_arrays(store)
    if damaged:
        raise DataError(
            f"{', '.join(map(str, damaged))}: not the bytes that were written",
            hint=f"remove {store.folder}; the images are then decoded again",
        )
    return store


def _with_row(check: DatasetCheck, row: CheckRow, offenders: list[str]) -> DatasetCheck:
    return replace(check, rows=(*check.rows, row), offenders=(*check.offenders, *offenders))
