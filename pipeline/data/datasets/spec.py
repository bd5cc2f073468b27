"""What a data set is to the rest of the project: how it is read and checked, what is published of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.config.datasets import DatasetOptions, Split
from pipeline.data.check import DatasetCheck, SplitCounts
from pipeline.data.truth import Dataset
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set.

    `read` and `check` take the root and, by keyword, those `data.*` settings that `options.settings` names; `read`
    also takes `split` where `options.splits` has any, and `check` never takes `split` or `allow_partial`.

    Attributes:
        options: Its name, splits and searches, and which settings apply to it.
        read: Lists its images; opens and writes none.
        check: Compares it with what is known about it.
        obtain: How a user gets it.
        published_counts: People and images of each part, `train` and `test` for instance; empty where none are known.
    """

    options: DatasetOptions
    read: Callable[..., Dataset]
    check: Callable[..., DatasetCheck]
    obtain: str
    published_counts: Mapping[str, SplitCounts] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What `data.name` calls it."""
        return self.options.name

    @property
    def any_split(self) -> Split | None:
        """A split for whoever needs the images of all splits; None where there is one split only."""
        return self.options.default_split or next(iter(self.options.splits), None)

    def reads(self, setting: str) -> bool:
        """Whether a setting of section `data` applies: `allow_partial`."""
        return f"data.{setting}" in self.options.settings

    def applicable(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Those settings of section `data` that apply.

        Raises:
            ConfigError: Another one is set.
        """
        for name, value in settings.items():
            if value and not self.reads(name):
                option = "--root" if name == "images_root" else f"--{name.replace('_', '-')}"
                hint = f"leave it out; on the command line it is {option}"
                raise ConfigError(f"data.{name} does not apply to data set {self.name}", hint)
        return {name: value for name, value in settings.items() if self.reads(name)}
