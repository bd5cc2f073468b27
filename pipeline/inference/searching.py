"""Search a gallery, and score the result where identities are known."""

import base64
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from pipeline.data.image_files import FROM_ANYWHERE, ImageReading, Unreadable, open_image, without_pillow_warnings
from pipeline.data.image_list import ImageList
from pipeline.data.synthetic.record import shows_synthetic
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.embedding import embed_images, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.index import Gallery, IndexedFile
from pipeline.reports.html import page_end, page_start, write_page


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
    """The hits of all queries; `synthetic` names which of `encoder`, `queries` and `gallery` are so."""

    queries: tuple[FoundByQuery, ...]
    unreadable: tuple[Unreadable, ...]
    score: Score | None
    recall: float | None
    synthetic: tuple[str, ...] = ()

    @property
    def caution(self) -> str | None:
        """A warning about synthetic images; None without any."""
        return f"synthetic people, not photographs: {', '.join(self.synthetic)}" if self.synthetic else None

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
    drawn = {"queries": shows_synthetic(images.root / images.paths[0]), "gallery": shows_synthetic(gallery.root)}
    origins = {"encoder": encoder.synthetic, **drawn}
    found = tuple(
        _found(readable, query, [gallery.files[row] for row in rows], similarities)
        for query, (rows, similarities) in enumerate(zip(hits.rows, hits.similarities, strict=True))
    )
    return GallerySearchResult(
        queries=found,
        unreadable=embedded.unreadable,
        score=_score([one for one in found if one.person in people]),
        recall=None if gallery.lists is None else gallery.lists.recall,
        synthetic=tuple(name for name, is_so in origins.items() if is_so),
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


MOST_QUERIES = 100
"""Shown on a page: 100 of them with ten hits each are 4 MB."""
_HEIGHT = 128
_STYLE = "search_page.css"


def write_search_page(result: GallerySearchResult, images: ImageList, gallery: Gallery, file: Path) -> None:
    """Write a page: each of the first 100 queries beside its hits, with scores and cameras; right or wrong is marked.

    Raises:
        ConfigError: The file cannot be written, or exists and is not a page.

    Cost: one decoding and 4 KB an image shown.
    """
    shown = result.queries[:MOST_QUERIES]
    paths = {images.root / query.path for query in shown}
    paths |= {gallery.root / hit.path for query in shown for hit in query.hits}
    reading = gallery.reading or FROM_ANYWHERE
    with without_pillow_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ordered = sorted(paths)
        thumbnails = dict(zip(ordered, pool.map(partial(_thumbnail, reading=reading), ordered), strict=True))
    write_page(file, _page(result, shown, images.root, gallery, thumbnails))


def _page(
    result: GallerySearchResult,
    shown: tuple[FoundByQuery, ...],
    root: Path,
    gallery: Gallery,
    thumbnails: dict[Path, str],
) -> Iterator[str]:
    yield page_start("What was found", (resources.files(__package__) / _STYLE).read_text(encoding="utf-8"))
    yield f"<p>{len(result.queries):,} queries in {len(gallery.files):,} {gallery.modality} images"
    if result.score is not None:
        score = result.score
        yield f"; of {score.queries:,} queries whose person is there, {100 * score.rank1:.2f} % found the person first"
    yield ".</p>\n"
    if result.caution:
        yield f"<p>{escape(result.caution)}.</p>\n"
    if len(shown) < len(result.queries):
        yield f"<p>The first {len(shown):,} of them are shown.</p>\n"
    if any(hit.right is not None for query in shown for hit in query.hits):
        yield "<p>Blue frames are right, dashed orange ones wrong.</p>\n"
    for query in shown:
        yield f'<div class="query"><h2>{escape(query.path)}</h2>\n<div class="hits">\n'
        yield _figure(thumbnails[root / query.path], "asked", ["query", *_names(query.camera, query.person)])
        for rank, hit in enumerate(query.hits, start=1):
            kind = {True: "right", False: "wrong", None: ""}[hit.right]
            lines = [f"{rank}. {hit.score:.3f}", *_names(hit.camera, hit.person), hit.path]
            yield _figure(thumbnails[gallery.root / hit.path], kind, lines)
        yield "</div></div>\n"
    yield page_end()


def _names(camera: str, person: str) -> list[str]:
    return [f"camera {camera}"] * bool(camera) + [f"person {person}"] * bool(person)


def _figure(thumbnail: str, kind: str, lines: list[str]) -> str:
    text = "<br>".join(escape(line).replace("/", "/<wbr>") for line in lines)
    picture = (
        f'<img src="data:image/jpeg;base64,{thumbnail}" alt="{escape(lines[-1])}">'
        if thumbnail
        else '<span class="lost">not readable</span>'
    )
    return f'<figure class="{kind}">{picture}<figcaption>{text}</figcaption></figure>\n'


def _thumbnail(path: Path, reading: ImageReading) -> str:
    """A small JPEG in base64; empty if the image cannot be read."""
    try:
        image = open_image(path, reading).image
    except (OSError, ValueError):
        return ""
    width = max(1, round(image.width * _HEIGHT / image.height))
    buffer = io.BytesIO()
    image.resize((min(width, 4 * _HEIGHT), _HEIGHT), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
