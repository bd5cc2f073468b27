"""The definition of a search protocol, and its requirements for feature files."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from models.modality import Modality, PerModality
from pipeline.config.datasets import DatasetOptions, Split
from pipeline.data.check import CheckRow, SplitCounts
from pipeline.data.datasets.sysu import Permutations
from pipeline.errors import DataError
from pipeline.evaluation.protocol import DrawName, ExclusionRule, RetrievalTrial, Samples
from pipeline.evaluation.ranking import RankBy

GalleryKind = Literal["full", "one_per_person_camera"]
Plans = list[list[RetrievalTrial]]
"""The trials of one search: a list for each draw and number of shots."""


@dataclass(frozen=True, slots=True)
class GalleryDraws:
    """How galleries are sampled, for protocols that sample them.

    `draws`: LLCM and manifests have `agw` only. `shots`: gallery images per person and camera, for SYSU-MM01 only; each
    number is a search of its own. `trials`: published numbers average 10. `permutations`: for the draw `official`.
    """

    draws: tuple[DrawName, ...] = ("agw",)
    shots: tuple[int, ...] = (1,)
    trials: int = 10
    permutations: Permutations | None = None


@dataclass(frozen=True, slots=True)
class GalleryRules:
    """Options of the protocol of a user's own data.

    `exclude` None is `same_person_same_camera` if one of several cameras has both modalities, else `none`. `gallery`:
    all images, or one per person and camera, sampled as `agw` does.
    """

    exclude: ExclusionRule | None = None
    gallery: GalleryKind = "full"
    rank_by: RankBy = "person"


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What the trials of a search depend on, besides the images.

    `split` is the published split, None if there is one only or it is unknown; `site` names the user's own data set.
    """

    draws: GalleryDraws = field(default_factory=GalleryDraws)
    rules: GalleryRules = field(default_factory=GalleryRules)
    split: Split | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class FileRules:
    """What `vireid rank` requires of feature files.

    Attributes:
        names: The values of `--protocol`.
        cameras: The highest camera number, if cameras are needed.
        infrared_cameras: If the camera decides the modality.
        query: The modality of all queries, if there is one direction only; `names` are then searches.
        count_rows: From one of `names` and all rows to published and found counts; None if nothing is published.
    """

    names: tuple[str, ...]
    cameras: int | None = None
    infrared_cameras: tuple[int, ...] = ()
    query: Modality | None = None
    count_rows: Callable[[str, PerModality[Samples]], list[CheckRow]] | None = None


def _as_they_are(_root: Path, draws: GalleryDraws, _final: bool) -> GalleryDraws:
    return draws


@dataclass(frozen=True, slots=True)
class SearchProtocol:
    """How a data set is searched.

    Attributes:
        options: Its name, its published searches, and which settings apply to it.
        plan: From the second part of a search's name, `all` or a direction, to its trials.
        validation: The second parts of the searches on validation images; the first one selects a round.
        prepare_draws: From the data root, the settings, and whether this is a run's last evaluation, to the draws used.
        files: None if `vireid rank` does not offer the protocol.
    """

    options: DatasetOptions
    plan: Callable[[str, PerModality[Samples], SearchOptions], Plans]
    validation: tuple[str, ...] = ()
    prepare_draws: Callable[[Path, GalleryDraws, bool], GalleryDraws] = _as_they_are
    files: FileRules | None = None

    @property
    def name(self) -> str:
        """The first part of the names of its searches."""
        return self.options.name

    @property
    def searches(self) -> tuple[str, ...]:
        """All searches: the published ones, and those among validation images."""
        others = (f"{self.name}/{part}" for part in self.validation)
        return tuple(dict.fromkeys((*self.options.searches, *others)))


def count_rows(published: SplitCounts, samples: PerModality[Samples]) -> list[CheckRow]:
    """Images of each modality, and people, as published and as found."""
    images = (CheckRow(f"{one} images", published.images[one], len(samples[one])) for one in Modality)
    return [*images, CheckRow("people", published.people, num_people(samples))]


def num_people(samples: PerModality[Samples]) -> int:
    """Number of people in both tables together."""
    return len(np.unique(np.concatenate([one.people for one in samples])))


def refuse_empty(trial: RetrievalTrial) -> None:
    """Raise DataError for a trial without a query or without a gallery."""
    for role, rows in (("query", trial.query), ("gallery", trial.gallery)):
        if len(rows) == 0:
            modality = trial.search.query if role == "query" else trial.search.query.other
            raise DataError(
                f"{trial.search.name}: no {modality} {role} image",
                hint="check the test split of the data set, or the `modalities` and the direction of feature files",
            )
