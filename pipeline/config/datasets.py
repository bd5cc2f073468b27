"""What the settings have to know of each data set: its splits, its searches, and which settings apply to it."""

from dataclasses import dataclass

from pipeline.errors import ConfigError

DIRECTIONS = ("infrared_to_visible", "visible_to_infrared")
Split = int | str
"""A published split: a name, or a number where every split needs a model of its own."""


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """What may be set for a data set.

    Attributes:
        name: The value of `data.name`, and the first part of the names of its searches.
        searches: Its published searches, the headline first.
        settings: Of the settings that only some data sets read, those that this one reads.
        splits: The values of `data.split`; empty where there is one split only.
        default_split: The split where none is named; None where one must be named.
        validation: The splits that leave images for validation; None where the user's own files decide.
        title: As its authors call it.
    """

    name: str
    searches: tuple[str, ...]
    settings: frozenset[str] = frozenset()
    splits: tuple[Split, ...] = ()
    default_split: Split | None = None
    validation: tuple[Split, ...] | None = ()
    title: str = ""

    @property
    def model_per_split(self) -> bool:
        """Whether results are published as the mean over one model for each split."""
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
)

OPTIONS = (SYSU, REGDB, LLCM, MANIFEST)


def options_of(name: str) -> DatasetOptions:
    """The options of a data set.

    Raises:
        ConfigError: There is no such data set.
    """
    for options in OPTIONS:
        if options.name == name:
            return options
    known = ", ".join(options.name for options in OPTIONS)
    raise ConfigError(f"there is no data set {name!r}", hint=f"choose from: {known}")


def readers_of(setting: str) -> str:
    """The names of the data sets that a setting applies to."""
    return ", ".join(options.name for options in OPTIONS if setting in options.settings)
