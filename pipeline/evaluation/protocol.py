"""Who may be shown to whom: what a search is, and the trials of it, as row numbers of the test tables.

A trial owns no image and no feature. Every trial of every search indexes one similarity matrix, so ten trials cost one
extraction. A modality decides which table a row number belongs to; the position of an argument never does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Bool, Int64

from models.modality import Modality, PerModality
from pipeline.evaluation.ranking import RankBy

DrawName = Literal["agw", "official"]
"""How a gallery is drawn; two draws are in use for SYSU-MM01, and no table mixes them."""

Direction = Literal["infrared_to_visible", "visible_to_infrared"]
"""Query first."""

ExclusionRule = Literal["none", "same_room", "same_person_same_camera", "same_camera"]
"""Which gallery images a query never sees, whatever they look like."""

SYSU_ROOM_IN_THE_DARK, SYSU_SAME_ROOM_LIT = 3, 2


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Who was seen by which camera, one entry an image of a test table.

    Attributes:
        people: Who is on each image.
        cameras: Which camera took it.
        paths: Its path, which sorts the images of one person and camera; None where the order of rows stands for it.
        query: Which rows may be queries; None for all.
        gallery: Which rows may be in a gallery; None for all.
    """

    people: Int64[np.ndarray, "n"]
    cameras: Int64[np.ndarray, "n"]
    paths: Sequence[str] | None = None
    query: Bool[np.ndarray, "n"] | None = None
    gallery: Bool[np.ndarray, "n"] | None = None

    def __len__(self) -> int:
        return len(self.people)

    def at(self, rows: Int64[np.ndarray, "m"]) -> "Samples":
        """People and cameras of some rows, in the order asked for."""
        return Samples(self.people[rows], self.cameras[rows])

    @property
    def query_rows(self) -> Int64[np.ndarray, "q"]:
        """The rows that may be queries, ascending."""
        return np.arange(len(self)) if self.query is None else np.flatnonzero(self.query)

    @property
    def gallery_rows(self) -> Int64[np.ndarray, "g"]:
        """The rows that may be in a gallery, ascending."""
        return np.arange(len(self)) if self.gallery is None else np.flatnonzero(self.gallery)


@dataclass(frozen=True, slots=True)
class Search:
    """What the trials of one search share, and what is recorded with its numbers.

    Attributes:
        name: Data set, search, shots and draw: `sysu/all/1-shot/agw`.
        query: The modality of the queries; the gallery is of the other one.
        draw: How the gallery was drawn; None for a fixed gallery.
        shots: Gallery images of one person and camera; None for a fixed gallery.
        rank_by: What the rank of a query counts.
        exclude: Which gallery images a query never sees.
    """

    name: str
    query: Modality
    draw: DrawName | None
    shots: int | None
    rank_by: RankBy
    exclude: ExclusionRule

    @property
    def direction(self) -> Direction:
        """Which modality is looked for in which: the query comes first."""
        return direction_from(self.query)


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalTrial:
    """The queries and the gallery of one trial.

    Attributes:
        search: What this trial is one trial of.
        number: Which one.
        query: Rows of the test table of the query modality, ascending.
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

    def excluded(self, samples: PerModality[Samples]) -> Bool[np.ndarray, "q g"]:
        """Which gallery images each query never sees, as a mask of query x gallery; formed anew at each call.

        Args:
            samples: All rows of both test tables.
        """
        queries = samples[self.search.query].at(self.query)
        return excluded_pairs(self.search.exclude, queries, samples[self.search.query.other].at(self.gallery))


def direction_from(query: Modality) -> Direction:
    """The name of the search that looks for images of one modality among those of the other."""
    return "infrared_to_visible" if query is Modality.INFRARED else "visible_to_infrared"


def query_modality(direction: str) -> Modality:
    """What is looked for in a direction: the opposite of `direction_from`."""
    return Modality.INFRARED if direction == "infrared_to_visible" else Modality.VISIBLE


def excluded_pairs(rule: ExclusionRule, query: Samples, gallery: Samples) -> Bool[np.ndarray, "q g"]:
    """Apply an exclusion rule: True where a gallery image is excluded from a query, absent and not wrong.

    Args:
        rule: `same_room`: camera 2 is excluded from camera 3, whoever is on the image, for on SYSU-MM01 the two are one
            room, lit and dark, while all other cameras are each a place of their own. `same_person_same_camera`: the
            query's own person seen by the query's own camera, as on LLCM, where both modalities of a camera share the
            scene. `same_camera`: everything that the query's camera saw.
        query: The queries' people and cameras.
        gallery: The gallery's.

    Source:
        `same_room`: Wu et al., ICCV 2017. `same_person_same_camera`: ZYK100/LLCM, the released test code.
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
