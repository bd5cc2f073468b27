"""Data sets as the settings need them: splits, searches, and which settings apply."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.runtime.names import did_you_mean

DIRECTIONS = ("infrared_to_visible", "visible_to_infrared")
Split = int | str
"""A published split: a name, or a number where each split is trained separately."""
Orientation = Literal["apply", "ignore"]
"""Whether images are turned by their orientation tag."""
DeepRange = Literal["image"] | tuple[float, float]
"""The values of deep images (more than 8 bits) that become black and white: of each image, or fixed ones."""
OnUnreadable = Literal["refuse", "skip"]
"""What happens to a data set with images that cannot be read: it is refused, or these images are skipped."""
TABLES = (".csv", ".tsv", ".jsonl")
"""Extensions of manifests."""


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Accepted settings of a data set.

    Attributes:
        name: The value of `data.name`, and the prefix of its searches.
        searches: Published searches, the headline first.
        settings: Settings that this data set reads and others do not.
        splits: Values of `data.split`; empty for a single split.
        default_split: Used when `data.split` is not set; None if it is required.
        validation: Splits with validation images; None if the user's files decide.
        orientation: Default of `data.orientation`; published images keep the bytes that papers used.
    """

    name: str
    searches: tuple[str, ...]
    settings: frozenset[str] = frozenset()
    splits: tuple[Split, ...] = ()
    default_split: Split | None = None
    validation: tuple[Split, ...] | None = ()
    title: str = ""
    orientation: Orientation = "ignore"

    @property
    def model_per_split(self) -> bool:
        """Whether published results average one model per split."""
        return bool(self.splits) and self.default_split is None


SYSU = DatasetOptions(
    "sysu",
    title="SYSU-MM01",
    searches=("sysu/all", "sysu/indoor"),
    settings=frozenset({"data.allow_partial", "evaluation.draws", "evaluation.shots", "evaluation.trials"}),
    splits=("train_val", "train"),
    default_split="train_val",
    validation=("train",),
)
REGDB = DatasetOptions(
    "regdb",
    title="RegDB",
    searches=tuple(f"regdb/{direction}" for direction in DIRECTIONS),
    settings=frozenset({"data.allow_partial"}),
    splits=tuple(range(1, 11)),
)
LLCM = DatasetOptions(
    "llcm",
    title="LLCM",
    searches=tuple(f"llcm/{direction}" for direction in DIRECTIONS),
    settings=frozenset({"data.allow_partial", "evaluation.trials"}),
)
MANIFEST = DatasetOptions(
    "manifest",
    searches=tuple(f"manifest/{direction}" for direction in DIRECTIONS),
    settings=frozenset({"data.images_root", "data.allow_overlap", "evaluation.rules", "evaluation.trials"}),
    validation=None,
    orientation="apply",
)

OPTIONS = (SYSU, REGDB, LLCM, MANIFEST)


def site_name(path: Path) -> str:
    """The name of a manifest's site, in the letters of names of runs: that of its file without the extension."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in path.stem.lower())


def is_table(path: Path) -> bool:
    """Whether a path is a manifest: an existing file with the extension of one."""
    return path.suffix.lower() in TABLES and os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises an OSError


def options_of(name: str) -> DatasetOptions:
    """The options of a data set; `ConfigError` for an unknown name."""
    for options in OPTIONS:
        if options.name == name:
            return options
    known = [options.name for options in OPTIONS]
    hint = f"{did_you_mean(name, known)}choose from: {', '.join(known)}"
    raise ConfigError(f"there is no data set {name!r}", hint=hint)


def readers_of(setting: str) -> str:
    """Names of the data sets that a setting applies to."""
    return ", ".join(options.name for options in OPTIONS if setting in options.settings)
