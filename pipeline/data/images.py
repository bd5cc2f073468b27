"""Tables of images, and images as training and evaluation see them: pixels and cameras, nothing about who is shown."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from models.modality import Modality

Kind = Literal["licensed", "drawn", "custom"]
"""What the images of a data set are: licensed photographs, synthetic people, or a user's own files."""


@dataclass(frozen=True, slots=True)
class ImageTable:
    """The images of one modality in the adapter's order: where each lies and which camera took it.

    There is no column for the person, but paths spell it (folders are named after people): a table stays with adapters
    and evaluation, and training gets `TrainingImages`. Paths are POSIX and relative to `root`.
    """

    root: Path
    paths: tuple[str, ...]
    cameras: Int64[np.ndarray, " n"]
    modality: Modality

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.cameras), "every image has one camera"

    def __len__(self) -> int:
        return len(self.paths)


def file_list_digest(tables: Iterable[ImageTable]) -> str:
    """`sha256:` and the digest of all relative paths, sorted, each followed by a newline; a moved folder keeps it."""
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
        """What kind of camera took them."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """What training may know of its images: pixels and cameras, in an order that says nothing about people.

    Folder order spells identity (all images of a person are neighbours), hence the permutation.
    """

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
        """All images of `table` in an order drawn from `generator`; `rows` says where in `pixels` each of them is."""
        assert len(rows) == len(table), "the rows belong to another table"
        order = generator.permutation(len(table))
        return cls(pixels=pixels, rows=rows[order], cameras=table.cameras[order], modality=table.modality)


@dataclass(frozen=True, slots=True)
class TestImages:
    """Images to be evaluated, in the adapter's order, so that row i is person i of the same table's `PersonIds`."""

    __test__: ClassVar[bool] = False  # a test runner takes the name for a test class otherwise

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
        """All images of `table` as they come; `rows` says where in `pixels` each of them is."""
        assert len(rows) == len(table), "the rows belong to another table"
        return cls(pixels=pixels, rows=rows, cameras=table.cameras, modality=table.modality)


def gather_pixels(
    images: StoredImages,
    positions: Int64[np.ndarray, " batch"],
    out: UInt8[np.ndarray, "batch height width 3"] | None = None,
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Copy the pixels of some images out of the store.

    Rows are read in the order in which they lie on disk, whatever the order asked for: a store that is not in memory
    yet is then read forwards.

    Args:
        images: Where the pixels are.
        positions: Which images, counted in the order of `images`; repetitions are allowed.
        out: Where to put them, for instance page-locked memory; a new array when absent.

    Returns:
        One image a position, in the order of `positions`.

    Raises:
        IndexError: A position is beyond the last image.

    Cost:
        Two copies: 124 KB an image at 288 x 144, twice.
    """
    rows = images.rows[positions]
    if out is None:
        out = np.empty((len(rows), *images.pixels.shape[1:]), dtype=np.uint8)
    forwards = np.argsort(rows, kind="stable")
    out[forwards] = images.pixels[rows[forwards]]
    return out
