"""Read a data set by its name. It contains true identities: training code must not import this module."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.datasets import Split
from pipeline.data.check import DatasetCheck
from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError

__all__ = ["Dataset", "SplitTables", "check_dataset", "read_dataset", "spec_of"]


def spec_of(name: str, datasets: Sequence[DatasetSpec] = DATASETS) -> DatasetSpec:
    """The data set of a name."""
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
    """List the images of a data set and compare them with its known counts; no image is opened.

    Arguments are those of section `data` of the settings; `split=None` is the usual split, if there is one.
    `pipeline.data.store.open_store` decodes.

    Raises:
        ConfigError: No such data set or split, or an option does not apply to it.
        DataError: The folder is something else, or is not complete.
    """
    spec = spec_of(name, datasets)
    given = spec.applicable(
        {"images_root": images_root, "allow_overlap": allow_overlap, "allow_partial": allow_partial}
    )
    if spec.options.splits:
        given["split"] = spec.options.default_split if split is None else split
    elif split is not None:
        raise ConfigError(f"data set {name} has one split only, not {split!r}", hint="omit the split")
    return spec.read(root, **given)


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
    return spec.check(root, **spec.applicable({"images_root": images_root, "allow_overlap": allow_overlap}))
