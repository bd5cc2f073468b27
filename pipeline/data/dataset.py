"""Reading a data set by its name. It holds true identities: training code must not import this module."""

from pathlib import Path

from pipeline.data.check import DatasetCheck
from pipeline.data.datasets.llcm.adapter import check_llcm, read_llcm
from pipeline.data.datasets.manifest.adapter import check_manifest, read_manifest
from pipeline.data.datasets.regdb.adapter import check_regdb, read_regdb
from pipeline.data.datasets.sysu.adapter import read_sysu_mm01
from pipeline.data.datasets.sysu.archive import open_archive
from pipeline.data.datasets.sysu.counts import check_sysu_mm01
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError

__all__ = ["Dataset", "SplitTables", "check_dataset", "read_dataset"]

_UNKNOWN = "choose sysu, regdb, llcm or manifest"


def read_dataset(
    name: str,
    root: Path,
    *,
    split: str = "train_val",
    trial: int | None = None,
    images_root: Path | None = None,
    allow_overlap: bool = False,
    allow_partial: bool = False,
) -> Dataset:
    """List the images of a data set and check them against what is known about it.

    No image is opened and nothing is written; `pipeline.data.store.open_store` decodes.

    Args:
        name: The layout: `sysu`, `regdb`, `llcm` or `manifest`.
        root: The data set's folder, or the manifest file.
        split: The people of SYSU-MM01 to train on: `train_val`, `train` or `val`.
        trial: Which of RegDB's ten splits.
        images_root: Where a manifest's paths start; its own folder when None.
        allow_overlap: Let a manifest name a person in training and in test; the result is then marked `overlap`.
        allow_partial: Go on when counts differ from the expected ones; the result is then marked `partial`.

    Returns:
        Tables of the training, validation and test images.

    Raises:
        ConfigError: No such data set, split or trial.
        DataError: The folder is something else, or is not complete.

    Cost:
        0.7 s at the size of SYSU-MM01 (measured) once the folder listings are in memory.
    """
    match name:
        case "sysu":
            return read_sysu_mm01(root, split=split, allow_partial=allow_partial)
        case "regdb":
            return read_regdb(root, trial=trial, allow_partial=allow_partial)
        case "llcm":
            return read_llcm(root, allow_partial=allow_partial)
        case "manifest":
            return read_manifest(root, images_root=images_root, allow_overlap=allow_overlap)
        case _:
            raise ConfigError(f"no data set {name!r}", hint=_UNKNOWN)


def check_dataset(
    name: str, root: Path, *, images_root: Path | None = None, allow_overlap: bool = False
) -> DatasetCheck:
    """Compare a data set with what is known about it; no image is opened.

    Args:
        name: As for `read_dataset`, like the others.
        root: The data set's folder, or the manifest file.
        images_root: Where a manifest's paths start.
        allow_overlap: Let a manifest name a person in training and in test.

    Raises:
        ConfigError: No such data set.
        DataError: The folder is something else altogether.
    """
    match name:
        case "sysu":
            return check_sysu_mm01(open_archive(root))
        case "regdb":
            return check_regdb(root)
        case "llcm":
            return check_llcm(root)
        case "manifest":
            return check_manifest(root, images_root=images_root, allow_overlap=allow_overlap)
        case _:
            raise ConfigError(f"no data set {name!r}", hint=_UNKNOWN)
