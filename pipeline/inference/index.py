"""A gallery index on disk: image vectors, their files, and inverted lists for large galleries.

The files of a new generation are written first and `index.json`, which names them, last: a reader sees the old index
or the new one, also after a kill.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from pydantic import AfterValidator, Field

from clustering.gallery_search import GalleryLists, Hits, most_similar, most_similar_of
from models.modality import Modality
from pipeline.data.image_files import ImageReading
from pipeline.errors import CheckpointError, DataError
from pipeline.runtime import atomic_files
from pipeline.runtime.arrays import read_array

INDEX = "index.json"
LOCK, SERVED, PARTS, STRANGER_PARTS = "lock", "served", "parts", "stranger-parts"
"""In the folder of an index: its lock, the mark of servers, and the folders of unfinished chunks."""
FORMAT = 1
_PARTS_OF_INDEX = re.compile(
    r"\.?(vectors-\d{6}\.npy|files-\d{6}\.jsonl|lists-\d{6}\.faiss|calibration-\d{6}\.npz)(\.tmp)?"
)
_REMAKE = "name a new folder with --index, or remove index.json, vectors-*, files-* and lists-* in this one"
INDEXES = Path("indexes")
"""The default folder of index folders."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """An image of a gallery: path (absolute or relative to its root), bytes, modification time in nanoseconds.

    `camera`, `person` and `track` are names, `time` is ISO 8601; empty if unknown.
    """

    path: str
    size: int
    changed: int
    camera: str = ""
    person: str = ""
    track: str = ""
    time: str = ""

    @property
    def state(self) -> tuple[str, int, int]:
        """Equal as long as the file is the one that was embedded."""
        return self.path, self.size, self.changed


def is_own(name: str) -> bool:
    """Whether a file name is that of a part of an index, besides `index.json`.

    >>> is_own("vectors-000001.npy"), is_own("vectors-of-mine.npy")
    (True, False)
    """
    return _PARTS_OF_INDEX.fullmatch(name) is not None


def _own(name: str) -> str:
    if not is_own(name):
        raise ValueError("it names no part of the index")
    return name


PartName = Annotated[str, AfterValidator(_own)]


@dataclass(frozen=True, slots=True)
class ListsRecord:
    """The file of the inverted lists, its SHA-256 (None in older indexes), and what a search of them takes."""

    file: PartName
    effort: Annotated[int, Field(ge=1)]
    recall: Annotated[float, Field(ge=0, le=1)]
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """The content of `index.json`: where the images come from, and the files of this generation."""

    format: int
    generation: Annotated[int, Field(ge=1, lt=10**6)]
    encoder: str
    modality: Modality
    source: str
    splits: tuple[str, ...]
    source_root: str | None
    root: str
    images: int
    dim: int
    vectors: PartName
    files: PartName
    lists: ListsRecord | None
    reading: ImageReading | None = None
    calibration: PartName | None = None


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

    @property
    def images(self) -> int:
        """Their number."""
        return len(self.files)

    @property
    def recall(self) -> float | None:
        """Share of the ten most similar images that the lists find; None for exhaustive search."""
        return None if self.lists is None else self.lists.recall

    def people(self, names: Collection[str]) -> set[str]:
        """Those of the named people of whom there is an image."""
        return {file.person for file in self.files} & set(names)

    def search(
        self, queries: Float32[np.ndarray, "q dim"], k: int, rows: Int64[np.ndarray, " m"] | None = None
    ) -> Hits:
        """The k most similar images of each query, given as a unit row; of `rows` (ascending) only, without the lists.

        Raises:
            DataError: The queries have another width.
        """
        require_same_width(self, queries)
        if rows is not None:
            return most_similar_of(queries, self.vectors, rows, k)
        if self.lists is None:
            return most_similar(queries, self.vectors, k)
        return self.lists.search(queries, self.vectors, k)


def require_same_width(gallery: Gallery, vectors: Float32[np.ndarray, "_ _"]) -> None:
    """DataError if vectors of its encoder have another width than those of an index."""
    if vectors.shape[1] != gallery.vectors.shape[1]:
        raise DataError(
            f"the index is damaged: its vectors have {gallery.vectors.shape[1]:,} dimensions, those of its encoder "
            f"{vectors.shape[1]:,}",
            hint=_REMAKE,
        )


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
    """Whether a folder holds an index, maybe a damaged one; the `index.json` of another program is none."""
    if not (path / INDEX).is_file():
        return False
    if any(is_own(entry.name) for entry in path.iterdir()):
        return True
    try:
        return {"generation", "vectors", "files"} <= (atomic_files.read_json(path / INDEX) or {}).keys()
    except CheckpointError:
        return False


def read_record(path: Path) -> IndexRecord:
    """Read `index.json`.

    Raises:
        DataError: It is missing, damaged, of another program or of another version.
    """
    if not is_index(path):
        raise DataError(f"{path} holds no index", hint="name the folder of images: its index is then made")
    try:
        content = atomic_files.read_json(path / INDEX) or {}
        if content.get("format") != FORMAT:
            raise DataError(f"{path} has format {content.get('format')!r:.40}, expected {FORMAT}", hint=_REMAKE)
        return atomic_files.checked(IndexRecord, content, path / INDEX)
    except CheckpointError as error:
        raise DataError(error.message, hint=_REMAKE) from error


def read_files(path: Path, record: IndexRecord) -> tuple[IndexedFile, ...]:
    """The images of an index, in the order of its vectors; CheckpointError if the list of them is damaged."""
    rows = atomic_files.read_lines(path / record.files)
    return atomic_files.checked(tuple[IndexedFile, ...], rows, path / record.files)


def open_gallery(path: Path, encoder: str) -> Gallery:
    """Open an index without refreshing it; vectors are memory-mapped. `encoder` is the digest of the queries' encoder.

    Raises:
        DataError: No index, a damaged one, or one of another encoder.
    """
    record = read_record(path)
    if record.encoder != encoder:
        raise DataError(
            f"{path} was made by another encoder ({record.encoder}) than that of the queries ({encoder})",
            hint="take the run that made it, with its --orientation, --deep-range and --precision, or give each "
            "encoder an --index folder of its own",
        )
    try:
        files = read_files(path, record)
        vectors = read_array(path / record.vectors, _REMAKE, mapped=True)
        if vectors.dtype != np.float32 or vectors.shape != (len(files), record.dim) or not vectors.size:
            raise ValueError(f"vectors are {vectors.dtype} {list(vectors.shape)} for {len(files):,} files")
        lists = None if record.lists is None else _open_lists(path, record.lists, vectors.shape)
    except (OSError, ValueError, CheckpointError) as error:
        raise DataError(f"{path} is damaged: {error}", hint=_REMAKE) from error
    modality, encoder, reading = record.modality, record.encoder, record.reading
    return Gallery(Path(record.root), files, np.asanyarray(vectors), modality, encoder, lists, reading)


def _open_lists(path: Path, record: ListsRecord, shape: tuple[int, ...]) -> GalleryLists | None:
    """None for lists without a digest: faiss is given only bytes that were written."""
    if record.sha256 is None:
        return None
    content = np.fromfile(path / record.file, dtype=np.uint8)
    if digest_of_lists(content) != record.sha256:
        raise ValueError(f"{record.file} holds other bytes than were written")
    lists = GalleryLists.from_bytes(content, record.effort, record.recall)
    if lists.shape != shape:
        raise ValueError(f"{record.file} holds {list(lists.shape)} vectors for {list(shape)}")
    return lists


def digest_of_lists(content: UInt8[np.ndarray, " b"]) -> str:
    """SHA-256 of serialised lists."""
    return hashlib.sha256(content.data).hexdigest()
