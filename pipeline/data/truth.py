"""True identities, and the values that contain them. A contract keeps training code from importing this module."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from models.modality import Modality, PerModality
from pipeline.config.datasets import Split
from pipeline.data.images import ImageTable, Kind, file_list_digest
from pipeline.errors import DataError

UNKNOWN_PERSON = -1  # of an image without a person; training needs none


@dataclass(frozen=True, slots=True)
class PersonIds:
    """The person of each image of a table, in the table's order."""

    ids: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> bool:
        """Whether every image has a known person."""
        return bool(np.all(self.ids != UNKNOWN_PERSON))


@dataclass(frozen=True, slots=True)
class Roles:
    """Which images of a table are queries and which are gallery images; an image can be both."""

    query: Bool[np.ndarray, " n"]
    gallery: Bool[np.ndarray, " n"]

    def only(self, kept: Bool[np.ndarray, " n"]) -> "Roles":
        """Those of the images of a mask."""
        return Roles(self.query[kept], self.gallery[kept])


@dataclass(frozen=True, slots=True)
class SplitTables:
    """The images of one split and their people; `roles` is None if the protocol determines the queries."""

    images: PerModality[ImageTable]
    people: PerModality[PersonIds]
    roles: PerModality[Roles] | None = None

    def __post_init__(self) -> None:
        for table, people in zip(self.images, self.people, strict=True):
            assert len(table) == len(people), "every image shows one person"

    def without(self, paths: Collection[str]) -> "SplitTables":
        """The same tables without some images."""
        kept = self.images.map(lambda table: np.array([path not in paths for path in table.paths], dtype=bool))
        return SplitTables(
            self.images.map_with(lambda table, mask: table.only(mask), kept),
            self.people.map_with(lambda people, mask: PersonIds(people.ids[mask]), kept),
            self.roles and self.roles.map_with(lambda roles, mask: roles.only(mask), kept),
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as an adapter found it.

    `name` is `sysu-mm01`, `regdb`, `llcm`, or the name of a manifest. `images` are those of all splits, decoded once.
    The tables of `training` are empty if a user's data set is for tests only. `validation` is None if training uses
    these images, `test` if a user's data set has no queries, `split` if there is one split only. `partial` and
    `overlap` mark what the user accepted: counts that differ from the published ones, and people in both training and
    test.
    """

    name: str
    kind: Kind
    root: Path
    images: PerModality[ImageTable]
    training: SplitTables
    validation: SplitTables | None = None
    test: SplitTables | None = None
    partial: bool = False
    split: Split | None = None
    overlap: bool = False

    @property
    def file_list(self) -> str:
        """The digest of all relative paths of training and test; independent of the root."""
        return file_list_digest((*self.training.images, *(self.test.images if self.test else ())))

    @property
    def fingerprint(self) -> dict[str, str]:
        """The digests of the file lists of training and test, separately: RegDB's splits differ in nothing else."""
        parts = {"training": self.training if self.has_training else None, "test": self.test}
        return {name: file_list_digest(tables.images) for name, tables in parts.items() if tables is not None}

    @property
    def has_training(self) -> bool:
        """Whether there are images for training."""
        return all(map(len, self.training.images))

    def without(self, paths: Collection[str]) -> "Dataset":
        """The same data set without some images in its splits; `images` keeps them, as rows of a store.

        A published data set is then `partial`.

        Raises:
            DataError: No image of a modality is left for training.
        """
        if not paths:
            return self
        training = self.training.without(paths)
        for table, before in zip(training.images, self.training.images, strict=True):
            if len(before) and not len(table):
                raise DataError(
                    f"{self.root}: none of {len(before):,} {table.modality} training images can be read",
                    hint="check these files: `vireid data check` names them",
                )
        return replace(
            self,
            training=training,
            validation=self.validation and self.validation.without(paths),
            test=self.test and self.test.without(paths),
            partial=self.partial or self.kind != "custom",
        )

    @property
    def description(self) -> dict[str, Any]:
        """Name, kind, and number of images of each part, as plain JSON types: a run records them."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        images = {
            part: {table.modality.value: len(table) for table in tables.images}
            for part, tables in parts.items()
            if tables is not None
        }
        return {"name": self.name, "kind": self.kind, "images": images}

    def stored_rows(self, table: ImageTable) -> Int64[np.ndarray, " n"]:
        """The row in `images` of the same modality of each image of a table."""
        row_of = {path: row for row, path in enumerate(self.images[table.modality].paths)}
        return np.array([row_of[path] for path in table.paths], dtype=np.int64)

    def training_places(
        self, stored_rows: PerModality[Int64[np.ndarray, " _"]]
    ) -> PerModality[Int64[np.ndarray, " _"]]:
        """The places in the tables of `training` of training images, given by their rows in `images`."""

        def look_up(table: ImageTable, rows: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " _"]:
            place_of = np.full(len(self.images[table.modality]), -1)
            place_of[self.stored_rows(table)] = np.arange(len(table))
            places: Int64[np.ndarray, " _"] = place_of[rows]
            assert (places >= 0).all(), "a row is no training image"
            return places

        return self.training.images.map_with(look_up, stored_rows)

    def training_people(self, stored_rows: PerModality[Int64[np.ndarray, " _"]]) -> PerModality[PersonIds]:
        """The persons of training images, given by their rows in `images`."""
        places = self.training_places(stored_rows)
        return self.training.people.map_with(lambda people, at: PersonIds(people.ids[at]), places)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image before it enters a table; `path` is POSIX and relative to the data root."""

    person: int
    camera: int
    path: str


def build_tables(
    root: Path,
    rows: PerModality[tuple[ImageRow, ...]],
    *,
    purpose: str,
    advice: str,
    fills_root: bool = True,
    may_be_empty: bool = False,
) -> SplitTables:
    """Sort images into tables: by person, then camera, then file name by code point, whatever their order.

    `purpose` begins the error (`training`, `test`) and `advice` is its hint. `may_be_empty` permits two empty tables.
    """
    for modality, found in rows.items():
        if not found and not (may_be_empty and not any(rows)):
            raise DataError(f"{root}: {purpose} needs visible and infrared images; {modality}: 0", hint=advice)
    ordered = rows.map(
        lambda found: sorted(found, key=lambda row: (row.person, row.camera, PurePosixPath(row.path).name, row.path))
    )
    return SplitTables(
        images=PerModality.build(lambda modality: _table(root, modality, ordered[modality], fills_root)),
        people=ordered.map(lambda found: PersonIds(np.array([row.person for row in found], dtype=np.int64))),
    )


def _table(root: Path, modality: Modality, rows: list[ImageRow], fills_root: bool) -> ImageTable:
    return ImageTable(
        root=root,
        paths=tuple(row.path for row in rows),
        cameras=np.array([row.camera for row in rows], dtype=np.int64),
        modality=modality,
        fills_root=fills_root,
    )
