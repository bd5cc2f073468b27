"""Make and refresh gallery indexes: new and changed images are embedded, missing ones dropped."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from pipeline.errors import DataError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.embedding import Embedded, forget_parts, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.gallery_images import (
    Kind,
    Refreshed,
    gallery_images,
    origin_of,
    recorded_source,
    require_existing,
    wants_lists,
)
from pipeline.inference.index import (
    LOCK,
    PARTS,
    SERVED,
    Gallery,
    GallerySource,
    IndexedFile,
    is_index,
    is_own,
    open_gallery,
    read_record,
    require_same_width,
)
from pipeline.inference.index_files import BLOCK, write_generation
from pipeline.inference.milvus_address import MilvusAddress, address_of
from pipeline.inference.milvus_gallery import MilvusGallery
from pipeline.inference.milvus_refresh import open_or_refresh_milvus
from pipeline.runtime.folder_lock import lock_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Merged:
    """The images of the next generation, sorted by path, each with the row of its old or new vector."""

    files: tuple[IndexedFile, ...]
    rows: Int64[np.ndarray, " n"]
    is_old: tuple[bool, ...]


def refresh_gallery(
    path: Path,
    encoder: TrainedEncoder,
    source: GallerySource,
    *,
    batch_size: int,
    kind: Kind = "auto",
    workers: int | None = None,
) -> tuple[Gallery, Refreshed]:
    """Make an index, or bring it up to date. A killed call resumes when repeated.

    An image is embedded again when its size or modification time has changed; a feature file takes the place of images,
    and its vectors are read again when it has changed. With `kind="auto"`, galleries of more
    than 300,000 images are searched in inverted lists.

    Raises:
        DataError: The folder holds other files, the index is of another encoder or modality, no image can be read; and
            see `list_images`.
        CheckpointError: Another process writes the index, or it cannot be written.

    Cost: one `stat` an image, one forward pass a new image; new vectors are held in memory.
    """
    images, modality = gallery_images(source, encoder), source.modality
    _refuse_foreign(path)
    lock = lock_folder(path, LOCK)
    try:
        before = open_gallery(path, encoder.digest) if is_index(path) else None
        if before is not None and before.modality is not modality:
            raise DataError(
                f"{path} holds {before.modality} images, not {modality} ones", hint="name another --index folder"
            )
        require_existing(images)
        root, files = images.root, images.files
        known = {}
        if before is not None and before.root == root:
            if before.reading is None:
                logger.info("%s was made by a version that read images in another way: all are embedded again", path)
            else:
                known = {file.state: row for row, file in enumerate(before.files)}
        new = np.array([row for row, file in zip(images.rows, files, strict=True) if file.state not in known], np.int64)
        embedded = images.embed(encoder, new, batch_size=batch_size, parts=path / PARTS, workers=workers)
        if embedded is not None and len(new) == len(files):
            require_some(embedded)
        merged = _merge(files, images.rows, known, new, embedded)
        kept = sum(merged.is_old)
        gone = len(images.listed) - len(files) + len(known) - kept
        refreshed = Refreshed(kept, len(merged.files) - kept, gone, 0 if embedded is None else len(embedded.unreadable))
        has_lists = wants_lists(kind, len(merged.files))
        if before is None or before.files != merged.files or has_lists != (before.lists is not None) or not known:
            _write(path, encoder, root, source, merged, before, embedded, has_lists)
        forget_parts(path / PARTS)
        return open_gallery(path, encoder.digest), refreshed
    finally:
        os.close(lock)


def _refuse_foreign(path: Path) -> None:
    if path.is_dir() and not is_index(path):
        others = sorted({entry.name for entry in path.iterdir()} - {LOCK, SERVED, PARTS})
        others = [name for name in others if not is_own(name)]
        if others:
            raise DataError(
                f"{path} is not an index, but holds other files (first: {others[0]})",
                hint="name a new or an empty folder with --index",
            )


def _merge(
    files: Sequence[IndexedFile],
    there: Sequence[int],
    known: dict[tuple[str, int, int], int],
    new: Int64[np.ndarray, " m"],
    embedded: Embedded | None,
) -> _Merged:
    """Old images that still exist, and new ones that could be read."""
    sources = [(file, known[file.state], True) for file in files if file.state in known]
    if embedded is not None:
        by_row = dict(zip(there, files, strict=True))
        sources += [(by_row[int(new[row])], at, False) for at, row in enumerate(embedded.rows)]
    sources.sort(key=lambda source: source[0].path)
    return _Merged(
        files=tuple(file for file, _, _ in sources),
        rows=np.array([row for _, row, _ in sources], dtype=np.int64),
        is_old=tuple(old for _, _, old in sources),
    )


def _write(
    path: Path,
    encoder: TrainedEncoder,
    root: Path,
    source: GallerySource,
    merged: _Merged,
    before: Gallery | None,
    embedded: Embedded | None,
    has_lists: bool,
) -> None:
    sources = [one.vectors for one in (before, embedded) if one is not None and one.vectors.size]
    if before is not None and embedded is not None and embedded.vectors.size:
        require_same_width(before, embedded.vectors)
    write_generation(
        path,
        origin_of(source, encoder, root),
        merged.files,
        _vectors(merged, before, embedded),
        dim=int(sources[0].shape[1]),
        last=None if before is None else read_record(path),
        has_lists=has_lists,
    )


def _vectors(
    merged: _Merged, before: Gallery | None, embedded: Embedded | None
) -> Iterator[Float32[np.ndarray, "b d"]]:
    """Unit rows in the order of the files, in blocks: a million rows take gigabytes."""
    for start in range(0, len(merged.files), BLOCK):
        rows = merged.rows[start : start + BLOCK]
        is_old = np.array(merged.is_old[start : start + BLOCK], dtype=bool)
        parts = np.empty((len(rows), 0), np.float32)
        if embedded is not None and not is_old.all():
            parts = np.empty((len(rows), embedded.vectors.shape[1]), np.float32)
            parts[~is_old] = unit_rows(embedded.vectors[rows[~is_old]], "gallery")
        if before is not None and is_old.any():
            if not parts.size:
                parts = np.empty((len(rows), before.vectors.shape[1]), np.float32)
            parts[is_old] = before.vectors[rows[is_old]]
        yield parts


def open_or_refresh(
    source: GallerySource,
    index: Path | None,
    below: Path,
    encoder: TrainedEncoder,
    *,
    batch_size: int,
    kind: Kind = "auto",
    workers: int | None = None,
) -> tuple[Gallery | MilvusGallery, Path | MilvusAddress]:
    """Find or make the index of a gallery, and refresh it.

    * `source`: The images; or an index, which is refreshed if its images still exist.
    * `index`: The index; a default one below `below` when None.

    Both name an index by its folder, or by the address of a collection in Milvus, see `address_of`.
    """
    address = address_of(source.path) or (None if index is None else address_of(index))
    if address is not None:
        return open_or_refresh_milvus(
            address, source, encoder, batch_size=batch_size, kind=kind, workers=workers
        ), address
    folder = index or source.index_folder(below, encoder.digest)
    if is_index(source.path):
        folder, source = source.path, recorded_source(read_record(source.path), source.path, source.modality)
        if not source.path.exists():
            logger.warning("%s does not exist: its index is searched without a refresh", source.path)
            opened = open_gallery(folder, encoder.digest)
            if opened.reading is None:
                logger.warning("%s was made by a version that read images in another way", folder)
            return opened, folder
    gallery, refreshed = refresh_gallery(folder, encoder, source, batch_size=batch_size, kind=kind, workers=workers)
    logger.info("%s: %s", folder, refreshed)
    return gallery, folder
