"""The decoded images of a run: one store serves training, validation and test, whatever the split or trial."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from models.modality import PerModality
from pipeline.config.experiment import AnyConfig
from pipeline.data.dataset import Dataset, SplitTables
from pipeline.data.images import ImageTable, TestImages, TrainingImages
from pipeline.data.inspection import verified_store
from pipeline.data.store import open_store
from pipeline.runtime.distributed import Processes
from pipeline.runtime.seeds import numpy_generator


@dataclass(frozen=True, slots=True)
class RunImages:
    """What a run trains on and what it is measured on; None where the data set has no such images."""

    training: PerModality[TrainingImages]
    validation: PerModality[TestImages] | None
    test: PerModality[TestImages] | None


def open_images(config: AnyConfig, dataset: Dataset) -> RunImages:
    """Decode the images, or find them decoded; training gets them in an order that says nothing about people.

    Cost:
        The decoded images are read and compared with their digests, by one process of each machine: a few seconds for
        SYSU-MM01, after which they lie in memory.
    """
    open_checked = verified_store if Processes.here().local_rank == 0 else open_store
    store = open_checked(
        dataset.images,
        height=config.images.height,
        width=config.images.width,
        cache_folder=config.execution.runs_folder / "images",
        workers=config.execution.decode_workers,
    )

    def shuffle(table: ImageTable, pixels: UInt8[np.ndarray, "stored height width 3"]) -> TrainingImages:
        generator = numpy_generator(config.seed, "data", table.modality)
        return TrainingImages.shuffled(table, pixels, dataset.stored_rows(table), generator)

    def keep_order(table: ImageTable, pixels: UInt8[np.ndarray, "stored height width 3"]) -> TestImages:
        return TestImages.in_order(table, pixels, dataset.stored_rows(table))

    def held_out(tables: SplitTables | None) -> PerModality[TestImages] | None:
        return None if tables is None else tables.images.map_with(keep_order, store.arrays)

    return RunImages(
        training=dataset.training.images.map_with(shuffle, store.arrays),
        validation=held_out(dataset.validation),
        test=held_out(dataset.test),
    )
