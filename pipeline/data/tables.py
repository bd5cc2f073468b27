"""Tables of an adapter's images, in the one order that random numbers and stores depend on."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.images import ImageTable
from pipeline.data.truth import PersonIds, SplitTables
from pipeline.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image before it enters a table; `path` is POSIX and relative to the data root."""

    person: int
    camera: int
    path: str


def build_tables(root: Path, rows: PerModality[tuple[ImageRow, ...]], *, purpose: str, advice: str) -> SplitTables:
    """Sort images into tables: by person, then camera, then file name by code point, whatever their order.

    `purpose` begins the error (`training`, `test`) and `advice` is its hint.

    Raises:
        DataError: A modality has no image.
    """
    for modality, found in rows.items():
        if not found:
            raise DataError(f"{root}: {purpose} needs visible and infrared images; {modality}: 0", hint=advice)
    ordered = rows.map(
        lambda found: sorted(found, key=lambda row: (row.person, row.camera, PurePosixPath(row.path).name, row.path))
    )
    return SplitTables(
        images=PerModality.build(lambda modality: _table(root, modality, ordered[modality])),
        people=ordered.map(lambda found: PersonIds(np.array([row.person for row in found], dtype=np.int64))),
    )


def _table(root: Path, modality: Modality, rows: list[ImageRow]) -> ImageTable:
    return ImageTable(
        root=root,
        paths=tuple(row.path for row in rows),
        cameras=np.array([row.camera for row in rows], dtype=np.int64),
        modality=modality,
    )
