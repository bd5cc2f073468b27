"""A data set as the rest of the project uses it: how it is read and checked, and its published counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.datasets import DatasetOptions, Split
from pipeline.data.check import DatasetCheck, SplitCounts
from pipeline.data.truth import Dataset
from pipeline.errors import ConfigError
from pipeline.runtime.names import is_there


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set.

    `read` and `check` take the root and, by keyword, those `data.*` settings that `options.settings` names; `read` also
    takes `split` if `options.splits` has any, and `check` never takes `split` or `allow_partial`. `published_counts`
    has the people and images of each part, such as `train` and `test`; `obtain` is the hint for users without the
    images; `parts` are the files and folders by which a root of this data set is recognised.
    """

    options: DatasetOptions
    read: Callable[..., Dataset]
    check: Callable[..., DatasetCheck]
    obtain: str
    published_counts: Mapping[str, SplitCounts] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Value of `data.name`."""
        return self.options.name

    @property
    def any_split(self) -> Split | None:
        """A split for callers that need the images of all splits; None if there is one split only."""
        return self.options.default_split or next(iter(self.options.splits), None)

    def has_layout(self, root: Path) -> bool:
        """Whether a folder holds all `parts` of this data set."""
        return bool(self.parts) and all(is_there(root / part) for part in self.parts)

    def reads(self, setting: str) -> bool:
        """Whether a setting of section `data` applies: `allow_partial`."""
        return f"data.{setting}" in self.options.settings

    def applicable(self, settings: Mapping[str, object]) -> dict[str, object]:
        """The given settings of section `data` that apply."""
        for name, value in settings.items():
            if value and not self.reads(name):
                option = "--root" if name == "images_root" else f"--{name.replace('_', '-')}"
                hint = f"omit it; on the command line it is {option}"
                raise ConfigError(f"data.{name} does not apply to data set {self.name}", hint)
        return {name: value for name, value in settings.items() if self.reads(name)}
