"""The definition of a search protocol, its requirements for feature files, and the sampling of galleries."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from models.modality import Modality, PerModality
from pipeline.config.datasets import DatasetOptions, Split
from pipeline.data.check import CheckRow, SplitCounts
from pipeline.data.datasets.sysu import PERMUTATION_FILE, Permutations, image_number, permutation_of
from pipeline.errors import ConfigError, DataError
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


Folders = Mapping[tuple[int, int], Sequence[int]]
"""The rows of each (person, camera), sorted by path; people ascending, inside cameras ascending."""


def group_images(samples: Samples, cameras: Sequence[int] | None = None) -> dict[tuple[int, int], list[int]]:
    """The gallery rows of each person and camera, of all cameras or the given ones; see `Folders`.

    Paths are compared by code point; without paths, rows keep their order.
    """
    rows = samples.gallery_rows
    if cameras is not None:
        rows = rows[np.isin(samples.cameras[rows], cameras)]
    people, taken_by, paths = samples.people, samples.cameras, samples.paths
    groups: dict[tuple[int, int], list[int]] = {}
    for row in sorted(
        rows.tolist(), key=lambda row: (people[row], taken_by[row], row if paths is None else paths[row])
    ):
        groups.setdefault((int(people[row]), int(taken_by[row])), []).append(row)
    return groups


def draw_agw(folders: Folders, trial: int, shots: int = 1) -> Int64[np.ndarray, " g"]:
    """Sample images of each person and camera with a generator seeded with the trial's number.

    Sampling follows the order of the folders, so the gallery depends on which folders exist. A folder with fewer
    images than `shots` is used completely.

    Source: mangye16/Cross-Modal-Re-ID-baseline, data_manager.py, for one shot. Differs: a generator of its own gives
    the same images as that code, which seeds the global one; several shots, which that code lacks, are one
    `Random.sample` a folder from the same generator.
    """
    generator = random.Random(trial)  # noqa: S311  the published draw is defined by this generator
    if shots == 1:
        return np.array([generator.choice(rows) for rows in folders.values()], dtype=np.int64)
    sampled = [generator.sample(list(rows), min(shots, len(rows))) for rows in folders.values()]
    return np.array([row for rows in sampled for row in rows], dtype=np.int64)


def draw_official(
    folders: Folders, paths: Sequence[str] | None, permutations: Permutations, trial: int, shots: int = 1
) -> Int64[np.ndarray, " g"]:
    """The first images of each person and camera in the order that SYSU-MM01's authors published.

    `paths` are those of all rows: file names are the image numbers; None numbers the rows of a folder from 1.

    Returns:
        Rows: cameras ascending, inside people ascending, inside in the published order.

    Raises:
        ConfigError: There are fewer published orders than trials.
        DataError: The orders belong to other images: another number of images in a folder, or other numbers.

    Source: wuancong/SYSU-MM01, evaluation.
    """
    chosen: list[int] = []
    for person, camera in sorted(folders, key=lambda folder: (folder[1], folder[0])):
        rows = folders[person, camera]
        orders = permutation_of(permutations, camera, person, len(rows))
        if trial >= len(orders):
            raise ConfigError(
                f"trial {trial} of the draw `official`: {PERMUTATION_FILE} holds {len(orders)} trials",
                hint=f"set at most {len(orders)} trials",
            )
        row_of_number = _numbered(rows, paths)
        if row_of_number.keys() != set(range(1, len(rows) + 1)):
            raise DataError(
                f"camera {camera}, person {person}: the {len(rows)} images are not numbered 1 to {len(rows)}",
                hint="the draw `official` uses the numbers of SYSU-MM01's own files; the draw `agw` needs none",
            )
        chosen += [row_of_number[number] for number in orders[trial, :shots].tolist()]
    return np.array(chosen, dtype=np.int64)


def _numbered(rows: Sequence[int], paths: Sequence[str] | None) -> dict[int | None, int]:
    if paths is None:
        return dict(enumerate(rows, start=1))
    return {image_number(paths[row].rpartition("/")[2]): row for row in rows}
