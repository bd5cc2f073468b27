"""List the images of a data set by its name, without torch. Training code must not import this: it has identities."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.datasets import Split
from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.truth import Dataset
from pipeline.errors import ConfigError, DataError
from pipeline.runtime.names import did_you_mean

__all__ = ["Dataset", "read_dataset", "refuse_other_layout", "spec_of"]


def spec_of(name: str, datasets: Sequence[DatasetSpec] = DATASETS) -> DatasetSpec:
    """The data set of a name."""
    for spec in datasets:
        if spec.name == name:
            return spec
    known = [one.name for one in datasets]
    hint = f"{did_you_mean(name, known)}choose from: {', '.join(known)}"
    raise ConfigError(f"there is no data set {name!r}", hint=hint)


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
    refuse_other_layout(spec, root, datasets)
    return spec.read(root, **given)


def refuse_other_layout(spec: DatasetSpec, root: Path, datasets: Sequence[DatasetSpec]) -> None:
    """Refuse a root that is laid out like another data set; the `DataError` names that one."""
    if spec.has_layout(root):
        return
    for other in datasets:
        if other.has_layout(root):
            title = other.options.title or f"a {other.name}"
            raise DataError(
                f"{root} is laid out like {title}, not like {spec.options.title or f'a {spec.name}'}",
                hint=f"the name of that data set is {other.name}: data.name={other.name} in the settings of a run",
            )
