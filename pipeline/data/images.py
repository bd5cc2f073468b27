"""Tables of images, and images as training and evaluation see them: pixels and cameras, without identities."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from models.modality import Modality

Kind = Literal["licensed", "drawn", "custom"]
"""Licensed photographs, synthetic images, or a user's own files."""


@dataclass(frozen=True, slots=True)
class ImageTable:
    """Paths and cameras of the images of one modality, in the adapter's order; paths are POSIX, relative to `root`.

    There is no person column, but paths contain identities (folders are named by person): a table stays with adapters
    and evaluation, and training gets `TrainingImages`. `fills_root`: the whole folder is the data set's, and nothing is
    written anywhere below it; otherwise this holds for the folders of the images only.
    """

    root: Path
    paths: tuple[str, ...]
    cameras: Int64[np.ndarray, " n"]
    modality: Modality
    fills_root: bool = True

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.cameras), "every image has one camera"

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, kept: Bool[np.ndarray, " n"]) -> "ImageTable":
        """The images of a mask."""
        paths = tuple(path for path, keep in zip(self.paths, kept, strict=True) if keep)
        return replace(self, paths=paths, cameras=self.cameras[kept])


def file_list_digest(tables: Iterable[ImageTable]) -> str:
    """`sha256:` and the digest of all relative paths, sorted, each followed by a newline; independent of the root."""
    paths = sorted(path for table in tables for path in table.paths)
    return "sha256:" + hashlib.sha256("".join(f"{path}\n" for path in paths).encode()).hexdigest()


@runtime_checkable
class StoredImages(Protocol):
    """Decoded images of one modality: image i is `pixels[rows[i]]`."""

    @property
    def pixels(self) -> UInt8[np.ndarray, "stored height width 3"]:
        """The store's array, shared and read only."""
        ...

    @property
    def rows(self) -> Int64[np.ndarray, " n"]:
        """The row of `pixels` that holds each image."""
        ...

    @property
    def modality(self) -> Modality:
        """Modality of the images."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """The images of training: pixels and cameras, shuffled, because folder order reveals identities."""

    pixels: UInt8[np.ndarray, "stored height width 3"]
    rows: Int64[np.ndarray, " n"]
    cameras: Int64[np.ndarray, " n"]
    modality: Modality

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def shuffled(
        cls,
        table: ImageTable,
        pixels: UInt8[np.ndarray, "stored height width 3"],
        rows: Int64[np.ndarray, " n"],
        generator: np.random.Generator,
    ) -> "TrainingImages":
        """All images of `table` in random order; `rows` is the row of each in `pixels`."""
        assert len(rows) == len(table), "the rows belong to another table"
        order = generator.permutation(len(table))
        return cls(pixels=pixels, rows=rows[order], cameras=table.cameras[order], modality=table.modality)


@dataclass(frozen=True, slots=True)
class TestImages:
    """Images of evaluation, in the adapter's order: row i is person i of the same table's `PersonIds`."""

    __test__: ClassVar[bool] = False  # not a test class

    pixels: UInt8[np.ndarray, "stored height width 3"]
    rows: Int64[np.ndarray, " n"]
    cameras: Int64[np.ndarray, " n"]
    modality: Modality

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def in_order(
        cls, table: ImageTable, pixels: UInt8[np.ndarray, "stored height width 3"], rows: Int64[np.ndarray, " n"]
    ) -> "TestImages":
        """All images of `table` in order; `rows` is the row of each in `pixels`."""
        assert len(rows) == len(table), "the rows belong to another table"
        return cls(pixels=pixels, rows=rows, cameras=table.cameras, modality=table.modality)


def gather_pixels(
    images: StoredImages,
    positions: Int64[np.ndarray, " batch"],
    out: UInt8[np.ndarray, "batch height width 3"] | None = None,
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Copy the pixels of some images (indices, with repetitions) out of the store, into `out` if given.

    Rows are read in storage order, so that a store on disk is read forwards.
    """
    rows = images.rows[positions]
    if out is None:
        out = np.empty((len(rows), *images.pixels.shape[1:]), dtype=np.uint8)
    forwards = np.argsort(rows, kind="stable")
    out[forwards] = images.pixels[rows[forwards]]
    return out
