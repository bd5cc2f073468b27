"""A gallery index on disk: image vectors, their files, and inverted lists for large galleries.

The files of a new generation are written first and `index.json`, which names them, last: a reader sees the old index
or the new one, also after a kill.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from clustering.gallery_search import GalleryLists, Hits, most_similar
from models.modality import Modality
from pipeline.data.image_files import ImageReading
from pipeline.errors import CheckpointError, DataError
from pipeline.runtime import atomic_files

INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """An image of a gallery: path (absolute or relative to its root), bytes, modification time in nanoseconds.

    `camera` and `person` are names, empty if unknown.
    """

    path: str
    size: int
    changed: int
    camera: str = ""
    person: str = ""

    @property
    def state(self) -> tuple[str, int, int]:
        """Equal as long as the file is the one that was embedded."""
        return self.path, self.size, self.changed


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """A searchable gallery: `files`, sorted by path, and their `vectors`, memory-mapped unit rows.

    Paths are relative to `root`; `lists` are None for exhaustive search; `reading` is None in an index of an earlier
    version, whose images were read in another way.
    """

    root: Path
    files: tuple[IndexedFile, ...]
    vectors: Float32[np.ndarray, "n dim"]
    modality: Modality
    encoder: str
    lists: GalleryLists | None
    reading: ImageReading | None

    def search(self, queries: Float32[np.ndarray, "q dim"], k: int) -> Hits:
        """The k most similar images of each query, given as a unit row."""
        if self.lists is None:
            return most_similar(queries, self.vectors, k)
        return self.lists.search(queries, self.vectors, k)


@dataclass(frozen=True, slots=True)
class GallerySource:
    """The images of a gallery: the arguments of `list_images`."""

    path: Path
    modality: Modality
    splits: tuple[str, ...] = ()
    root: Path | None = None

    def index_folder(self, below: Path, encoder: str) -> Path:
        """The default index folder of these images and this encoder."""
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
    """Whether a folder holds an index."""
    return (path / INDEX).is_file()


def read_record(path: Path) -> dict[str, Any]:
    """Read `index.json`.

    Raises:
        DataError: It is missing, damaged, or of another version.
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
    """Open an index without refreshing it; vectors are memory-mapped. `encoder` is the digest of the queries' encoder.

    Raises:
        DataError: No index, a damaged one, or one of another encoder.
    """
    record = read_record(path)
    if record["encoder"] != encoder:
        raise DataError(
            f"{path} was made by another encoder ({record['encoder']}) than that of the queries ({encoder})",
            hint="take the run that made it, with its --orientation, --deep-range and --precision, or give each "
            "encoder an --index folder of its own",
        )
    try:
        files = tuple(IndexedFile(**row) for row in atomic_files.read_lines(path / record["files"]))
        vectors = np.load(path / record["vectors"], mmap_mode="r", allow_pickle=False)
        lists = None
        if record["lists"] is not None:
            content = np.fromfile(path / record["lists"]["file"], dtype=np.uint8)
            lists = GalleryLists.from_bytes(content, record["lists"]["effort"], record["lists"]["recall"])
        reading = ImageReading.from_dict(record["reading"]) if "reading" in record else None
        if len(files) != len(vectors):
            raise ValueError(f"{len(vectors):,} vectors of {len(files):,} files")
    except (OSError, ValueError, TypeError, KeyError, CheckpointError) as error:
        raise DataError(f"{path} is damaged: {error}", hint="remove the folder: the index is made again") from error
    return Gallery(
        Path(record["root"]), files, vectors, Modality(record["modality"]), record["encoder"], lists, reading
    )
