"""True identities, and the values that hold them. Training code cannot import this module: a contract checks it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from models.modality import PerModality
from pipeline.data.images import ImageTable

Kind = Literal["licensed", "drawn", "custom"]


@dataclass(frozen=True, slots=True)
class PersonIds:
    """Who is shown in each image of a table, in the table's order."""

    ids: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    def in_order(self, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        """The people of table rows `rows`: with `TrainingImages.rows`, those of shuffled images."""
        people: Int64[np.ndarray, " m"] = self.ids[rows]
        return people


@dataclass(frozen=True, slots=True)
class SplitTables:
    """The images of one split and, apart from them, the people they show."""

    images: PerModality[ImageTable]
    people: PerModality[PersonIds]

    def __post_init__(self) -> None:
        self.images.map_with(_check_lengths, self.people)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as an adapter found it.

    `kind` says what stands behind the numbers: licensed photographs, drawn figures or a user's own files. `partial` is
    true when counts differ from the published ones and the user went on. `file_list` is `sha256:` and the digest of all
    relative paths, sorted, each followed by a newline; it stays the same when the folder moves.
    """

    name: str
    kind: Kind
    root: Path
    training: SplitTables
    test: SplitTables
    partial: bool
    file_list: str


def _check_lengths(table: ImageTable, people: PersonIds) -> None:
    assert len(table) == len(people), "every image shows one person"
