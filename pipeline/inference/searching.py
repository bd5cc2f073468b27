"""Queries against a gallery: who is found first, and, where it is known who is who, how often that is right."""

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
    """One image that a query found.

    Attributes:
        path: Relative to the gallery's root, or absolute.
        score: Cosine of both vectors, at most 1.
        camera: The name of its camera; empty where nobody says.
        person: Likewise of the person.
        right: Whether it shows the query's person; None where that is not known.
    """

    path: str
    score: float
    camera: str
    person: str
    right: bool | None


@dataclass(frozen=True, slots=True)
class FoundByQuery:
    """A query and the images that are most similar to it, best first."""

    path: str
    camera: str
    person: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How often a search is right, over the queries whose person is known and is somewhere in the gallery."""

    queries: int
    rank1: float
    found_in_hits: float


@dataclass(frozen=True, slots=True)
class GallerySearchResult:
    """What all queries found."""

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
    """Find the k most similar images of the gallery for every query that can be read.

    No image is hidden from a query: protocols do that (`vireid evaluate`, `vireid rank`).

    Args:
        encoder: The one that made the gallery.
        images: The queries.
        gallery: What is searched.
        k: How many images a query finds.
        batch_size: Queries encoded at once.
        workers: How many images are decoded at once; one a core when None.

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
