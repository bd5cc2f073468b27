"""Who may be shown to whom: the trials of a search, as row numbers of the test tables.

A trial owns no image and no feature. Every trial of every search indexes one similarity matrix, so ten trials cost one
extraction. A modality decides which table a row number belongs to; the position of an argument never does.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from models.modality import Modality, PerModality
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.ranking import RankBy

DrawName = Literal["agw", "official"]
"""How a gallery is drawn; two draws are in use for SYSU-MM01, and no table mixes them."""

Direction = Literal["infrared_to_visible", "visible_to_infrared"]
"""Query first."""

SysuSearch = Literal["all", "indoor"]
"""Which cameras the SYSU-MM01 gallery comes from."""

SYSU_QUERY_CAMERAS = (3, 6)
SYSU_ROOM_IN_THE_DARK, SYSU_SAME_ROOM_LIT = 3, 2


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """Who was seen by which camera, one entry an image."""

    people: Int64[np.ndarray, "n"]
    cameras: Int64[np.ndarray, "n"]

    def at(self, rows: Int64[np.ndarray, "m"]) -> "Sightings":
        """The sightings of some rows, in the order asked for."""
        return Sightings(self.people[rows], self.cameras[rows])


Exclusion = Callable[[Sightings, Sightings], Bool[np.ndarray, "q g"]]
"""From the queries' and the gallery's sightings to a mask: True where a gallery image is hidden from a query."""


@dataclass(frozen=True, slots=True)
class Search:
    """What the trials of one search share, and what is recorded with its numbers.

    Attributes:
        name: Data set, search, shots and draw: `sysu/all/1-shot/agw`.
        query: The modality of the queries; the gallery is of the other one.
        draw: How the gallery was drawn; None for a fixed gallery.
        shots: Gallery images of one person and camera; None for a fixed gallery.
        rank_by: What the rank of a query counts.
        excluded: Which gallery images a query never sees.
    """

    name: str
    query: Modality
    draw: DrawName | None
    shots: int | None
    rank_by: RankBy
    excluded: Exclusion

    @property
    def direction(self) -> Direction:
        """Which modality is looked for in which: the query comes first."""
        return "infrared_to_visible" if self.query is Modality.INFRARED else "visible_to_infrared"


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalTrial:
    """The queries and the gallery of one trial.

    Attributes:
        search: What this trial is one trial of.
        number: Which one, from 0.
        query: Rows of the test table of the query modality.
        gallery: Rows of the test table of the other modality. Their order decides ties.
    """

    search: Search
    number: int
    query: Int64[np.ndarray, "q"]
    gallery: Int64[np.ndarray, "g"]

    @property
    def name(self) -> str:
        """The search and the number of the trial: `sysu/all/1-shot/agw/trial-0`."""
        return f"{self.search.name}/trial-{self.number}"

    def hidden(self, sightings: PerModality[Sightings]) -> Bool[np.ndarray, "q g"]:
        """Which gallery images each query never sees, as a mask of query x gallery; formed anew at each call.

        Args:
            sightings: All rows of both test tables.
        """
        queries = sightings[self.search.query].at(self.query)
        return self.search.excluded(queries, sightings[self.search.query.other].at(self.gallery))


def plan_trials(
    search: str,
    people: PerModality[Int64[np.ndarray, "n"]],
    cameras: PerModality[Int64[np.ndarray, "n"]],
    paths: PerModality[Sequence[str]],
    *,
    trials: int = 10,
) -> list[RetrievalTrial]:
    """The trials of a search, by its name.

    Args:
        search: `sysu/all` or `sysu/indoor`.
        people: Who is on each test image.
        cameras: Which camera took it.
        paths: Its path; sorts the images of one person and camera.
        trials: How many galleries are drawn.

    Raises:
        ConfigError: There is no such search.
        DataError: The test tables hold no query or no gallery image of the search.
    """
    match search:
        case "sysu/all":
            return sysu_trials(people, cameras, paths, "all", trials)
        case "sysu/indoor":
            return sysu_trials(people, cameras, paths, "indoor", trials)
        case _:
            raise ConfigError(f"there is no search '{search}'", hint="choose from: sysu/all, sysu/indoor")


def sysu_trials(
    people: PerModality[Int64[np.ndarray, "n"]],
    cameras: PerModality[Int64[np.ndarray, "n"]],
    paths: PerModality[Sequence[str]],
    search: SysuSearch,
    trials: int = 10,
) -> list[RetrievalTrial]:
    """The single-shot trials of SYSU-MM01 with the `agw` draw: infrared queries, visible gallery.

    The queries are all images of cameras 3 and 6 in both searches, also of people whom no indoor camera saw: such
    queries are invalid and counted, not wrong. The indoor gallery is not the indoor part of the `all` gallery of the
    same trial, because fewer cameras take fewer draws from the same generator.

    Args:
        people: Who is on each test image.
        cameras: Which camera took it, 1 to 6.
        paths: Its path; sorts the images of one person and camera.
        search: `all` takes the gallery from cameras 1, 2, 4 and 5, `indoor` from 1 and 2.
        trials: How many galleries are drawn, from 1; published numbers use 10.

    Returns:
        One trial for each of the seeds 0, 1, ...: of the full test set 3,803 queries, and a gallery of 301 or 112.

    Raises:
        ConfigError: Fewer than one trial is asked for.
        DataError: The test tables hold no query or no gallery image of the search.

    Source:
        Wu et al., ICCV 2017, and wuancong/SYSU-MM01; for the draw, mangye16/Cross-Modal-Re-ID-baseline.
    """
    if trials < 1:
        raise ConfigError(f"{trials} trials asked for, at least 1 is needed", hint="published numbers use 10 trials")
    gallery_cameras = (1, 2, 4, 5) if search == "all" else (1, 2)
    query = np.flatnonzero(np.isin(cameras.infrared, SYSU_QUERY_CAMERAS))
    folders = group_images(people.visible, cameras.visible, paths.visible, gallery_cameras)
    for rows, role, wanted in ((query, "query", SYSU_QUERY_CAMERAS), (folders, "gallery", gallery_cameras)):
        if len(rows) == 0:
            listed = ", ".join(map(str, wanted))
            raise DataError(
                f"sysu/{search}: no {role} image, of cameras {listed}, among {len(people.visible):,} visible and "
                f"{len(people.infrared):,} infrared test images",
                hint="check the test split of the data set",
            )
    kind = Search(f"sysu/{search}/1-shot/agw", Modality.INFRARED, "agw", 1, "person", hide_same_room)
    return [RetrievalTrial(kind, trial, query, draw_agw(folders, trial)) for trial in range(trials)]


def hide_same_room(query: Sightings, gallery: Sightings) -> Bool[np.ndarray, "q g"]:
    """Hide camera 2 from camera 3, whoever is on the image: on SYSU-MM01 the two are one room, lit and dark.

    Source:
        Wu et al., ICCV 2017. Nothing else is excluded: the cameras 1, 4, 5 and 6 are each a place of their own.
    """
    dark, lit = query.cameras == SYSU_ROOM_IN_THE_DARK, gallery.cameras == SYSU_SAME_ROOM_LIT
    hidden: Bool[np.ndarray, "q g"] = dark[:, None] & lit
    return hidden


def group_images(
    people: Int64[np.ndarray, "n"],
    cameras: Int64[np.ndarray, "n"],
    paths: Sequence[str],
    wanted_cameras: Sequence[int],
) -> dict[tuple[int, int], list[int]]:
    """The rows of each person and camera, sorted by path; people ascending, inside cameras ascending.

    Args:
        people: Who is on each image.
        cameras: Which camera took it.
        paths: Its path, compared by code point.
        wanted_cameras: The cameras to keep.
    """
    rows = np.flatnonzero(np.isin(cameras, wanted_cameras)).tolist()
    groups: dict[tuple[int, int], list[int]] = {}
    for row in sorted(rows, key=lambda row: (people[row], cameras[row], paths[row])):
        groups.setdefault((int(people[row]), int(cameras[row])), []).append(row)
    return groups


def draw_agw(folders: Mapping[tuple[int, int], Sequence[int]], trial: int) -> Int64[np.ndarray, "g"]:
    """Draw one image of each person and camera, from a generator seeded with the trial's number.

    The draws follow the order of the folders, so the gallery depends on which folders there are.

    Args:
        folders: The rows of each person and camera, as `group_images` orders them.
        trial: The seed, from 0.

    Returns:
        One row a folder, in the order of the folders.

    Source:
        mangye16/Cross-Modal-Re-ID-baseline, data_manager.py. Differs: a generator of its own draws the same images
        as that code draws after seeding the global one, which stays untouched here.
    """
    generator = random.Random(trial)  # noqa: S311  the published draw is defined by this generator
    return np.array([generator.choice(rows) for rows in folders.values()], dtype=np.int64)
