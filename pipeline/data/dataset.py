"""Reading a data set by its name. It holds true identities: training code must not import this module."""

from pathlib import Path

from pipeline.data.sysu_mm01 import read_sysu_mm01
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError

__all__ = ["Dataset", "SplitTables", "read_dataset"]


def read_dataset(name: str, root: Path, *, split: str = "train_val", allow_partial: bool = False) -> Dataset:
    """List the images of a data set and check them against what is known about it.

    No image is opened and nothing is written; `pipeline.data.store.open_store` decodes.

    Args:
        name: The layout: `sysu`.
        root: The data set's folder.
        split: The people to train on: `train_val`, `train` or `val`.
        allow_partial: Go on when counts differ from the expected ones; the result is then marked `partial`.

    Returns:
        Tables of the training and the test images.

    Raises:
        ConfigError: No such data set or split.
        DataError: The folder is something else, or is not complete.

    Cost:
        0.7 s at the size of SYSU-MM01 (measured) once the folder listings are in memory.
    """
    match name:
        case "sysu":
            return read_sysu_mm01(root, split=split, allow_partial=allow_partial)
        case _:
            raise ConfigError(f"no data set {name!r}", hint="data.name is sysu")
