"""Search results as one HTML page that works offline, without scripts."""

import base64
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib import resources
from pathlib import Path

from PIL import Image

from pipeline.data.decoding import large_images_expected, open_any_image
from pipeline.data.image_list import ImageList
from pipeline.inference.index import Gallery
from pipeline.inference.searching import FoundByQuery, GallerySearchResult
from pipeline.reports.html import page_end, page_start, write_page

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
    with large_images_expected(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ordered = sorted(paths)
        thumbnails = dict(zip(ordered, pool.map(_thumbnail, ordered), strict=True))
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


def _thumbnail(path: Path) -> str:
    """A small JPEG in base64; empty if the image cannot be read."""
    try:
        image = open_any_image(path).image
    except (OSError, ValueError):
        return ""
    width = max(1, round(image.width * _HEIGHT / image.height))
    buffer = io.BytesIO()
    image.resize((min(width, 4 * _HEIGHT), _HEIGHT), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
