"""True identities, and the values that hold them. Training code cannot import this module: a contract checks it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from models.modality import PerModality
from pipeline.config.datasets import Split
from pipeline.data.images import ImageTable, Kind, file_list_digest

UNKNOWN_PERSON = -1
"""Stands for the person on an image of whom nothing is said: training needs nobody's name."""


@dataclass(frozen=True, slots=True)
class PersonIds:
    """Who is shown in each image of a table, in the table's order."""

    ids: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> bool:
        """Whether the person on every image is known."""
        return bool(np.all(self.ids != UNKNOWN_PERSON))


@dataclass(frozen=True, slots=True)
class Roles:
    """Which images of a table are queries and which are gallery; an image can be both."""

    query: Bool[np.ndarray, " n"]
    gallery: Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class SplitTables:
    """The images of one split and, apart from them, the people they show.

    `roles` is None where the protocol alone decides which images are queries, as in every published data set.
    """

    images: PerModality[ImageTable]
    people: PerModality[PersonIds]
    roles: PerModality[Roles] | None = None

    def __post_init__(self) -> None:
        self.images.map_with(_check_lengths, self.people)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as an adapter found it.

    Attributes:
        name: What results are filed under: `sysu-mm01`, `regdb`, `llcm`, or the name of a manifest.
        kind: What stands behind the numbers: licensed photographs, drawn figures or a user's own files.
        root: The folder that paths start from.
        images: Every image of the data set, whichever split it is in: what is decoded, once for all splits and trials.
        training: What is trained on.
        validation: Held-out images to choose a round by; None where there are none, or training uses them.
        test: What results are measured on; None where a user's data set names no queries.
        partial: Counts differ from the published ones, and the user went on.
        file_list: `sha256:` and the digest of all relative paths of training and test, sorted, each followed by a
            newline; it stays the same when the folder moves.
        split: Which of the published splits this is; None where there is one only.
        overlap: Some people are in training and in test, and the user wants it so.
    """

    name: str
    kind: Kind
    root: Path
    images: PerModality[ImageTable]
    training: SplitTables
    validation: SplitTables | None
    test: SplitTables | None
    partial: bool
    file_list: str
    split: Split | None = None
    overlap: bool = False

    @property
    def fingerprint(self) -> dict[str, str]:
        """The digests of the file lists of training and test, apart: RegDB's splits differ in nothing else."""
        parts = {"training": self.training, "test": self.test}
        return {name: file_list_digest(tables.images) for name, tables in parts.items() if tables is not None}

    def stored_rows(self, table: ImageTable) -> Int64[np.ndarray, " n"]:
        """Where among `images` of the same modality each image of a table is."""
        row_of = {path: row for row, path in enumerate(self.images[table.modality].paths)}
        return np.array([row_of[path] for path in table.paths], dtype=np.int64)

    def training_places(
        self, stored_rows: PerModality[Int64[np.ndarray, " _"]]
    ) -> PerModality[Int64[np.ndarray, " _"]]:
        """Where training images, given by their rows among `images`, stand in the tables of `training`."""

        def look_up(table: ImageTable, rows: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " _"]:
            place_of = np.full(len(self.images[table.modality]), -1)
            place_of[self.stored_rows(table)] = np.arange(len(table))
            places: Int64[np.ndarray, " _"] = place_of[rows]
            assert (places >= 0).all(), "a row is no training image"
            return places

        return self.training.images.map_with(look_up, stored_rows)

    def training_people(self, stored_rows: PerModality[Int64[np.ndarray, " _"]]) -> PerModality[PersonIds]:
        """The people of training images, given by their rows among `images`: those of shuffled images."""
        places = self.training_places(stored_rows)
        return self.training.people.map_with(lambda people, at: PersonIds(people.ids[at]), places)


def _check_lengths(table: ImageTable, people: PersonIds) -> None:
    assert len(table) == len(people), "every image shows one person"
