"""Searches and their trials, as row numbers of the test tables.

Every trial of every search indexes one similarity matrix, so ten trials cost one extraction. The modality decides which
table a row number belongs to; the position of an argument never does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Bool, Int64

from models.modality import Modality, PerModality
from pipeline.evaluation.ranking import RankBy

DrawName = Literal["agw", "official"]
"""How a gallery is sampled; two ways are in use for SYSU-MM01, and no table mixes them."""

Direction = Literal["infrared_to_visible", "visible_to_infrared"]
"""Query first."""

ExclusionRule = Literal["none", "same_room", "same_person_same_camera", "same_camera"]
"""Which gallery images are excluded from a query's ranking."""

SYSU_ROOM_IN_THE_DARK, SYSU_SAME_ROOM_LIT = 3, 2


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Identity and camera of each image of a test table.

    `paths` sort the images of one person and camera; without them, the order of rows does. `query` and `gallery` mark
    the rows that may be queries or in a gallery; None for all.
    """

    people: Int64[np.ndarray, " n"]
    cameras: Int64[np.ndarray, " n"]
    paths: Sequence[str] | None = None
    query: Bool[np.ndarray, " n"] | None = None
    gallery: Bool[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.people)

    def at(self, rows: Int64[np.ndarray, " m"]) -> "Samples":
        """People and cameras of some rows, in the given order."""
        return Samples(self.people[rows], self.cameras[rows])

    @property
    def query_rows(self) -> Int64[np.ndarray, " q"]:
        """The rows that may be queries, ascending."""
        return np.arange(len(self)) if self.query is None else np.flatnonzero(self.query)

    @property
    def gallery_rows(self) -> Int64[np.ndarray, " g"]:
        """The rows that may be in a gallery, ascending."""
        return np.arange(len(self)) if self.gallery is None else np.flatnonzero(self.gallery)


@dataclass(frozen=True, slots=True)
class Search:
    """What the trials of one search share, and what is recorded with its numbers.

    `name` is data set, search, shots and draw: `sysu/all/1-shot/agw`. `query` is the modality of the queries. `draw`
    and `shots` (gallery images per person and camera) are None for a fixed gallery.
    """

    name: str
    query: Modality
    draw: DrawName | None
    shots: int | None
    rank_by: RankBy
    exclude: ExclusionRule

    @property
    def direction(self) -> Direction:
        """Query modality first."""
        return direction_from(self.query)


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalTrial:
    """One trial: `query`, ascending rows of the query modality's test table, and `gallery`, rows of the other one.

    The order of `gallery` decides ties.
    """

    search: Search
    number: int
    query: Int64[np.ndarray, " q"]
    gallery: Int64[np.ndarray, " g"]

    @property
    def name(self) -> str:
        """The search and the number of the trial: `sysu/all/1-shot/agw/trial-0`."""
        return f"{self.search.name}/trial-{self.number}"

    def excluded(self, samples: PerModality[Samples]) -> Bool[np.ndarray, "q g"]:
        """`excluded_pairs` of the trial; `samples` are all rows of both test tables. Computed at each call."""
        queries = samples[self.search.query].at(self.query)
        return excluded_pairs(self.search.exclude, queries, samples[self.search.query.other].at(self.gallery))


def direction_from(query: Modality) -> Direction:
    """The direction whose queries are of this modality."""
    return "infrared_to_visible" if query is Modality.INFRARED else "visible_to_infrared"


def query_modality(direction: str) -> Modality:
    """The modality of the queries of a direction: the inverse of `direction_from`."""
    return Modality.INFRARED if direction == "infrared_to_visible" else Modality.VISIBLE


def excluded_pairs(rule: ExclusionRule, query: Samples, gallery: Samples) -> Bool[np.ndarray, "q g"]:
    """Apply an exclusion rule: True where a gallery image is excluded from a query's ranking.

    `same_room`: camera 2 is excluded from camera 3, for any person, because on SYSU-MM01 the two are one room, lit and
    dark. `same_person_same_camera`: the query's own person seen by the query's own camera, as on LLCM, where both
    modalities of a camera share the scene. `same_camera`: all images of the query's camera.

    Source: `same_room`: Wu et al., ICCV 2017. `same_person_same_camera`: ZYK100/LLCM, the released test code.
    """
    mask: Bool[np.ndarray, "q g"]
    match rule:
        case "none":
            mask = np.zeros((len(query), len(gallery)), dtype=bool)
        case "same_room":
            mask = (query.cameras == SYSU_ROOM_IN_THE_DARK)[:, None] & (gallery.cameras == SYSU_SAME_ROOM_LIT)
        case "same_camera":
            mask = query.cameras[:, None] == gallery.cameras
        case "same_person_same_camera":
            mask = (query.cameras[:, None] == gallery.cameras) & (query.people[:, None] == gallery.people)
        case _:
            assert_never(rule)
    return mask
