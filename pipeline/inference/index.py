"""A gallery on disk: vectors of images, the files that they are of, and lists where there are many of them.

The folder holds one generation of files at a time, named in `index.json`, which is replaced last: a reader finds the
old gallery or the new one, and a kill loses neither.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from clustering.gallery_search import GalleryLists, Hits, most_similar
from models.modality import Modality
from pipeline.errors import CheckpointError, DataError
from pipeline.runtime import atomic_files

INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """An image of a gallery.

    Attributes:
        path: Relative to the gallery's root, or absolute.
        size: Bytes.
        changed: When its content last changed, in nanoseconds of the system's clock.
        camera: The name of the camera; empty where nobody says.
        person: The name of the person; empty where nobody says.
    """

    path: str
    size: int
    changed: int
    camera: str = ""
    person: str = ""

    @property
    def state(self) -> tuple[str, int, int]:
        """Says whether it is still the image that was embedded."""
        return self.path, self.size, self.changed


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Images that can be searched.

    Attributes:
        root: Where paths start.
        files: One entry an image, sorted by path.
        vectors: Unit rows, mapped from the file.
        modality: What took them.
        encoder: The digest of the encoder.
        lists: None where every image is compared.
    """

    root: Path
    files: tuple[IndexedFile, ...]
    vectors: Float32[np.ndarray, "n dim"]
    modality: Modality
    encoder: str
    lists: GalleryLists | None

    def search(self, queries: Float32[np.ndarray, "q dim"], k: int) -> Hits:
        """The k most similar images of each query, given as a unit row."""
        if self.lists is None:
            return most_similar(queries, self.vectors, k)
        return self.lists.search(queries, self.vectors, k)


@dataclass(frozen=True, slots=True)
class GallerySource:
    """Which images a gallery is made of, as `list_images` takes it."""

    path: Path
    modality: Modality
    splits: tuple[str, ...] = ()
    root: Path | None = None

    def index_folder(self, below: Path, encoder: str) -> Path:
        """A folder of its own for these images and this encoder."""
        key = [
            str(self.path.resolve()),
            self.modality.value,
            *self.splits,
            str(self.root and self.root.resolve()),
            encoder,
        ]
        digest = hashlib.sha256("\0".join(key).encode(errors="surrogateescape")).hexdigest()
        return below / f"{self.path.resolve().stem or 'gallery'}-{digest[:8]}"


def is_index(path: Path) -> bool:
    """Whether a folder is one of ours."""
    return (path / INDEX).is_file()


def read_record(path: Path) -> dict[str, Any]:
    """What an index says of itself.

    Raises:
        DataError: It is none, damaged, or of another version.
    """
    try:
        record = atomic_files.read_json(path / INDEX)
    except CheckpointError as error:
        raise DataError(error.message, hint="remove the folder: the index is made again") from error
    if record is None:
        raise DataError(f"{path} holds no index", hint="name the folder of images: its index is then made")
    if record.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {record.get('format')!r}, expected {FORMAT}",
            hint="remove the folder: the index is made again",
        )
    return record


def open_gallery(path: Path, encoder: str) -> Gallery:
    """Open an index as it stands.

    Args:
        path: Its folder.
        encoder: The digest of the encoder of the queries.

    Raises:
        DataError: It is no index, damaged, or was made by another encoder.

    Cost: The list of files is read, and lists where there are any; vectors are mapped.
    """
    record = read_record(path)
    if record["encoder"] != encoder:
        raise DataError(
            f"{path} was made by another encoder ({record['encoder']}) than that of the queries ({encoder})",
            hint="take the run that made it, or give each encoder an --index folder of its own",
        )
    try:
        files = tuple(IndexedFile(**row) for row in atomic_files.read_lines(path / record["files"]))
        vectors = np.load(path / record["vectors"], mmap_mode="r", allow_pickle=False)
        lists = None
        if record["lists"] is not None:
            content = np.fromfile(path / record["lists"]["file"], dtype=np.uint8)
            lists = GalleryLists.from_bytes(content, record["lists"]["effort"], record["lists"]["recall"])
        if len(files) != len(vectors):
            raise ValueError(f"{len(vectors):,} vectors of {len(files):,} files")
    except (OSError, ValueError, TypeError, KeyError, CheckpointError) as error:
        raise DataError(f"{path} is damaged: {error}", hint="remove the folder: the index is made again") from error
    return Gallery(Path(record["root"]), files, vectors, Modality(record["modality"]), record["encoder"], lists)
