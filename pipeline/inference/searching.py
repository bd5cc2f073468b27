"""Search a gallery, and score the result where identities are known."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from pipeline.data.decoding import Unreadable
from pipeline.data.image_list import ImageList
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.embedding import embed_images, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.index import Gallery, IndexedFile


@dataclass(frozen=True, slots=True)
class Hit:
    """A gallery image found by a query, with its cosine similarity.

    `camera` and `person` are names, empty if unknown; `right` is whether it shows the query's person, None if unknown.
    """

    path: str
    score: float
    camera: str
    person: str
    right: bool | None


@dataclass(frozen=True, slots=True)
class FoundByQuery:
    """A query and its most similar images, best first."""

    path: str
    camera: str
    person: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Rank-1, and the share with a right hit, over queries whose person is known and in the gallery."""

    queries: int
    rank1: float
    found_in_hits: float


@dataclass(frozen=True, slots=True)
class GallerySearchResult:
    """The hits of all queries."""

    queries: tuple[FoundByQuery, ...]
    unreadable: tuple[Unreadable, ...]
    score: Score | None
    recall: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def search_gallery(
    encoder: TrainedEncoder, images: ImageList, gallery: Gallery, k: int, *, batch_size: int, workers: int | None = None
) -> GallerySearchResult:
    """Find the k most similar gallery images of every readable query. No image is excluded, unlike in protocols.

    Raises:
        DataError: No query can be read.
        TrainingError: See `TrainedEncoder.encode`.
    """
    embedded = require_some(
        embed_images(encoder, images, batch_size=batch_size, workers=workers, description="embed queries")
    )
    readable = images.only(embedded.rows)
    queries: Float32[np.ndarray, "q dim"] = unit_rows(embedded.vectors, "queries").astype(np.float32)
    hits = gallery.search(queries, k)
    people = {file.person for file in gallery.files if file.person}
    found = tuple(
        _found(readable, query, [gallery.files[row] for row in rows], similarities)
        for query, (rows, similarities) in enumerate(zip(hits.rows, hits.similarities, strict=True))
    )
    return GallerySearchResult(
        queries=found,
        unreadable=embedded.unreadable,
        score=_score([one for one in found if one.person in people]),
        recall=None if gallery.lists is None else gallery.lists.recall,
    )


def _found(
    images: ImageList,
    query: int,
    files: list[IndexedFile],
    similarities: Float32[np.ndarray, " k"],
) -> FoundByQuery:
    known = images.known
    camera, person = ("", "") if known is None else (known.cameras[query], known.people[query])
    hits = tuple(
        Hit(file.path, float(score), file.camera, file.person, _right(person, file.person))
        for file, score in zip(files, similarities, strict=True)
    )
    return FoundByQuery(images.paths[query], camera, person, hits)


def _right(person: str, found: str) -> bool | None:
    return person == found if person and found else None


def _score(judged: list[FoundByQuery]) -> Score | None:
    if not judged:
        return None
    first = sum(one.hits[0].right is True for one in judged)
    anywhere = sum(any(hit.right for hit in one.hits) for one in judged)
    return Score(len(judged), first / len(judged), anywhere / len(judged))
