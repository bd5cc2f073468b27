"""Pages of a search: each query beside its hits, readable without a server."""

import base64
import io
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from pipeline.data.image_files import FROM_ANYWHERE, ImageReading, open_image, without_pillow_warnings
from pipeline.data.image_list import ImageList
from pipeline.inference.index import Gallery
from pipeline.inference.milvus_gallery import MilvusGallery
from pipeline.inference.searching import FoundByQuery, GallerySearchResult, one_in_text
from pipeline.reports.html import page_end, page_start, write_page
from pipeline.runtime.outputs import PAGE, check_file, is_special

logger = logging.getLogger(__name__)

PER_PAGE = 100
"""Queries on a page: 100 of them with ten hits each are 4 MB."""
_HEIGHT = 128
_STYLE = "search_page.css"


def write_search_page(
    result: GallerySearchResult, images: ImageList, gallery: Gallery | MilvusGallery, file: Path
) -> list[Path]:
    """Write pages of 100 queries, each beside its hits, with scores and cameras; right or wrong is marked.

    The first page is `file`, the others `file-002.html` and so on beside it. Returns all of them. Further pages of an
    earlier search are removed; a file of such a name that does not link to the page before is none, and kept.

    Raises:
        ConfigError: A file cannot be written, or exists and is not a page.

    Cost: one decoding and 4 KB an image shown.
    """
    per_page = len(result.queries) if is_special(file) else PER_PAGE
    starts = range(0, len(result.queries), per_page)
    files = [_numbered(file, number) for number in range(1, len(starts) + 1)]
    for one in files[1:]:
        check_file(one, PAGE, "--html")
    with without_pillow_warnings():
        for number, start in enumerate(starts):
            shown = result.queries[start : start + per_page]
            thumbnails = _thumbnails(shown, images.root, gallery)
            links = _links(files, number, per_page, len(result.queries))
            write_page(files[number], _page(result, shown, links, images.root, gallery, thumbnails))
    for one in [] if is_special(file) else _left_pages(file, len(files)):
        one.unlink(missing_ok=True)
        logger.info("%s is removed: a page of an earlier search", one)
    return files


def _numbered(first: Path, number: int) -> Path:
    return first if number == 1 else first.with_name(f"{first.stem}-{number:03d}{first.suffix}")


def _left_pages(first: Path, count: int) -> list[Path]:
    """The pages beyond the first `count` ones, of an earlier search."""
    name = re.compile(rf"{re.escape(first.stem)}-(\d{{3,}}){re.escape(first.suffix)}")
    numbers = sorted(int(match[1]) for one in first.parent.iterdir() if (match := name.fullmatch(one.name)))
    return [_numbered(first, number) for number in numbers if number > count and _is_later_page(first, number)]


def _is_later_page(first: Path, number: int) -> bool:
    page = _numbered(first, number)
    if page.is_symlink() or not page.is_file() or not PAGE.recognise(page):
        return False
    return _link("previous page", _numbered(first, number - 1)).encode() in page.read_bytes()


def _thumbnails(shown: tuple[FoundByQuery, ...], root: Path, gallery: Gallery | MilvusGallery) -> dict[Path, str]:
    paths = {root / query.path for query in shown} | {gallery.root / hit.path for query in shown for hit in query.hits}
    ordered, reading = sorted(paths), gallery.reading or FROM_ANYWHERE
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(ordered, pool.map(partial(_thumbnail, reading=reading), ordered), strict=True))


def _links(files: list[Path], number: int, per_page: int, total: int) -> str:
    """Links to the pages before and after; empty for a single page."""
    if len(files) == 1:
        return ""
    first, last = number * per_page + 1, min(total, (number + 1) * per_page)
    parts = [f"Queries {first:,} to {last:,}, page {number + 1} of {len(files)}"]
    for word, at in (("previous page", number - 1), ("next page", number + 1)):
        if 0 <= at < len(files):
            parts.append(_link(word, files[at]))
    return f"<p>{' · '.join(parts)}</p>\n"


def _link(word: str, file: Path) -> str:
    return f'<a href="{quote(file.name, errors="surrogateescape")}">{word}</a>'


def _page(
    result: GallerySearchResult,
    shown: tuple[FoundByQuery, ...],
    links: str,
    root: Path,
    gallery: Gallery | MilvusGallery,
    thumbnails: dict[Path, str],
) -> Iterator[str]:
    yield page_start("What was found", (resources.files(__package__) / _STYLE).read_text(encoding="utf-8"))
    yield f"<p>{len(result.queries):,} queries in {gallery.images:,} {gallery.modality} images"
    if result.score is not None:
        score = result.score
        yield f"; of {score.queries:,} queries whose person is there, {100 * score.rank1:.2f} % found the person first"
    yield ".</p>\n"
    if result.caution:
        yield f"<p>{escape(result.caution)}.</p>\n"
    if result.threshold is not None:
        yield f"<p>Images with a score below {result.threshold:.3f} are not shown.</p>\n"
    if any(hit.right is not None for query in shown for hit in query.hits):
        yield "<p>Blue frames are right, dashed orange ones wrong.</p>\n"
    yield links
    for query in shown:
        yield f'<div class="query"><h2>{escape(query.group or query.path)}</h2>\n<div class="hits">\n'
        known = [*_size(query.images), *_names(query.camera, query.person)]
        yield _figure(thumbnails[root / query.path], "asked", ["query", *known])
        for rank, hit in enumerate(query.hits, start=1):
            kind = {True: "right", False: "wrong", None: ""}[hit.right]
            lines = [f"{rank}. {hit.score:.3f}", *_chance(hit.one_in), *_size(hit.images)]
            lines += [*_names(hit.camera, hit.person), hit.path]
            yield _figure(thumbnails[gallery.root / hit.path], kind, lines)
        if not query.hits:
            yield "<p>no match</p>\n"
        yield "</div></div>\n"
    yield links + page_end()


def _chance(one_in: float | None) -> list[str]:
    return [] if one_in is None else [f"{one_in_text(one_in)} strangers"]


def _size(images: int) -> list[str]:
    return [f"{images:,} images"] * (images > 1)


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
