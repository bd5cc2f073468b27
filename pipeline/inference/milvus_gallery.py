"""A gallery whose vectors are in Milvus: found by the database, compared again in float32 as in the index folder."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clustering.gallery_search import Hits
from models.modality import Modality
from pipeline.data.image_files import ImageReading
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.inference.filters import Filters
from pipeline.inference.groups import Grouping
from pipeline.inference.index import IndexedFile
from pipeline.inference.milvus_address import MilvusAddress
from pipeline.inference.milvus_store import MOST_FOUND, SPARE, Candidates, MilvusStore, connected
from pipeline.runtime import atomic_files

FORMAT = 1
NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """An image that was found, and its unit vector."""

    file: IndexedFile
    vector: Float32[np.ndarray, " dim"]


@dataclass(frozen=True, slots=True)
class MilvusRecord:
    """The description of a gallery in its collection; `cameras` has the number of images of each known one.

    `span` is the first and the last known time, ISO 8601 in UTC without its mark. `digest` is that of the list of
    images, empty if a version without calibrations wrote it.
    """

    format: int
    encoder: str
    modality: Modality
    source: str
    splits: tuple[str, ...]
    source_root: str | None
    root: str
    dim: int
    reading: ImageReading
    images: int
    cameras: dict[str, int]
    span: tuple[str, str] | None
    digest: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class MilvusGallery:
    """A searchable gallery in a collection. Rows are numbers from 1 on, with gaps; a row keeps its number."""

    store: MilvusStore
    record: MilvusRecord

    @property
    def root(self) -> Path:
        """The folder that paths start from."""
        return Path(self.record.root)

    @property
    def modality(self) -> Modality:
        """That of the images."""
        return self.record.modality

    @property
    def reading(self) -> ImageReading:
        """How the images were read."""
        return self.record.reading

    @property
    def images(self) -> int:
        """Their number at the last refresh."""
        return self.record.images

    @property
    def recall(self) -> None:
        """It is not measured."""
        return

    def people(self, names: Collection[str]) -> set[str]:
        """Those of the named people of whom there is an image; one request each."""
        return {name for name in set(names) if self.store.has_person(name)}

    def search(
        self, queries: Float32[np.ndarray, "q dim"], k: int, filters: Filters = NO_FILTERS
    ) -> tuple[Hits, Mapping[int, StoredImage]]:
        """The k most similar images of each query, given as a unit row, and the image of each row that was found.

        Where a query has fewer images than another, its last rows are -1, with similarities of minus infinity.

        Raises:
            ConfigError: k is more than a search of Milvus can have.
            DataError: The queries have another width.
            CheckpointError: The database fails.

        Cost: the search of the database, and the transfer of k + 32 vectors a query, of which k are kept.
        """
        if k > MOST_FOUND - SPARE:
            raise ConfigError(
                f"a search in Milvus finds at most {MOST_FOUND - SPARE:,} images", hint="choose a smaller --top"
            )
        if queries.shape[1] != self.record.dim:
            raise DataError(
                f"{self.store.address} is damaged: its vectors have {self.record.dim:,} dimensions, those of its "
                f"encoder {queries.shape[1]:,}",
                hint="name another collection",
            )
        found = self.store.search(queries, k, filters)
        width = min(k, max((len(one.rows) for one in found), default=0))
        hits = Hits(np.full((len(queries), width), -1), np.full((len(queries), width), -np.inf, np.float32))
        images: dict[int, StoredImage] = {}
        for at, candidates in enumerate(found):
            chosen, scores = _best(queries[at], candidates, k)
            hits.rows[at, : len(chosen)] = candidates.rows[chosen]
            hits.similarities[at, : len(chosen)] = scores
            vectors = candidates.vectors[chosen]  # a copy: the other candidates are not kept
            images |= {
                int(candidates.rows[one]): StoredImage(candidates.files[one], vector)
                for one, vector in zip(chosen, vectors, strict=True)
            }
        return hits, images

    def file(self, row: int) -> IndexedFile | None:
        """The image of a row; None if there is none."""
        found = self.store.get([row]).files
        return found[0] if found else None


def _best(
    query: Float32[np.ndarray, " dim"], candidates: Candidates, k: int
) -> tuple[Sequence[int], Float32[np.ndarray, " m"]]:
    """Positions of the k best candidates, ties by path as in the index folder, and their inner products."""
    if not len(candidates.rows):
        return [], np.empty(0, np.float32)
    scores = candidates.vectors @ query
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], candidates.files[at].path))[:k]
    return order, scores[order]


def refuse_groups(grouping: Grouping) -> None:
    """ConfigError if gallery images are to be searched as groups, which needs all vectors at once."""
    if grouping.gallery:
        raise ConfigError(
            "a gallery in Milvus is searched by single images, not by groups",
            hint="give --query-group in place of --group, or keep the index in a folder",
        )


def open_milvus(address: MilvusAddress, encoder: str | None) -> MilvusGallery:
    """Open a gallery without refreshing it. `encoder` is the digest of the queries' encoder; None accepts any.

    Raises:
        ConfigError: See `connected`.
        DataError: There is no such gallery, it is damaged, or of another encoder.
        CheckpointError: The database fails.
    """
    found = find_milvus(address, encoder)
    if found is None:
        raise DataError(
            f"{address} holds no gallery", hint="name the images with --gallery, and the address with --index"
        )
    return found


def find_milvus(address: MilvusAddress, encoder: str | None) -> MilvusGallery | None:
    """Open a gallery as `open_milvus` does; None if there is none."""
    if address.file is not None and not address.file.exists():
        return None
    with connected(address) as store:
        record = read_milvus_record(store, encoder) if store.exists() else None
        return None if record is None else MilvusGallery(store, record)


def read_milvus_record(store: MilvusStore, encoder: str | None) -> MilvusRecord | None:
    """The description of the gallery in a collection; None if it was never written.

    Raises:
        DataError: It is damaged, of another version, or of another encoder than `encoder`, where one is given.
    """
    content = store.record()
    if content is None:
        return None
    if content.get("format") != FORMAT:
        raise DataError(
            f"{store.address} has format {content.get('format')!r:.40}, expected {FORMAT}",
            hint="name another collection",
        )
    try:
        record = atomic_files.checked(MilvusRecord, content, Path(str(store.address)))
    except CheckpointError as error:
        raise DataError(error.message, hint="name another collection") from error
    if encoder not in (None, record.encoder):
        raise DataError(
            f"{store.address} was made by another encoder ({record.encoder}) than that of the queries ({encoder})",
            hint="take the run that made it, with its --orientation, --deep-range and --precision, or give each "
            "encoder a collection of its own",
        )
    return record
