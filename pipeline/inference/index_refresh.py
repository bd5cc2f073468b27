"""Make and refresh gallery indexes: new and changed images are embedded, missing ones dropped."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from models.modality import Modality
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import DataError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.embedding import Embedded, embed_images, forget_parts, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.gallery_features import is_feature_file, read_gallery_features
from pipeline.inference.index import (
    LOCK,
    PARTS,
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
from pipeline.runtime.folder_lock import lock_folder

logger = logging.getLogger(__name__)

EXACT_UP_TO = 300_000
"""Images up to which every one is compared with every query: 2.5 GB at 2,048 dimensions."""

Kind = Literal["auto", "exact", "ivf"]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Counts of images: kept, embedded (new or changed), gone, unreadable."""

    kept: int
    embedded: int
    gone: int
    unreadable: int

    def __str__(self) -> str:
        parts = {
            "as before": self.kept, "embedded": self.embedded, "gone": self.gone, "not readable": self.unreadable,
        }  # fmt: skip
        return ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)


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
    given = read_gallery_features(source, encoder) if is_feature_file(source.path) else None
    images = given.images if given else list_images(source.path, source.modality, source.splits, source.root)
    modality = source.modality
    _refuse_foreign(path)
    lock = lock_folder(path, LOCK)
    try:
        before = open_gallery(path, encoder.digest) if is_index(path) else None
        if before is not None and before.modality is not modality:
            raise DataError(
                f"{path} holds {before.modality} images, not {modality} ones", hint="name another --index folder"
            )
        there, files = _existing(images, source.path if given else None)
        if not files:
            raise DataError(
                f"none of {len(images):,} images exists, first: {images.root / images.paths[0]}",
                hint="if the paths of a manifest or a list are relative to another folder, name it with --root",
            )
        root = images.root.resolve()
        known = {}
        if before is not None and before.root == root:
            if before.reading is None:
                logger.info("%s was made by a version that read images in another way: all are embedded again", path)
            else:
                known = {file.state: row for row, file in enumerate(before.files)}
        new = np.array([row for row, file in zip(there, files, strict=True) if file.state not in known], dtype=np.int64)
        embedded = _embed(
            encoder, images.only(new), given.only(new) if given else None, path / PARTS, batch_size, workers
        )
        if embedded is not None and len(new) == len(files):
            require_some(embedded)
        merged = _merge(files, there, known, new, embedded)
        kept = sum(merged.is_old)
        gone = len(images) - len(files) + len(known) - kept
        refreshed = Refreshed(kept, len(merged.files) - kept, gone, 0 if embedded is None else len(embedded.unreadable))
        has_lists = kind == "ivf" or (kind == "auto" and len(merged.files) > EXACT_UP_TO)
        if before is None or before.files != merged.files or has_lists != (before.lists is not None) or not known:
            _write(path, encoder, root, source, merged, before, embedded, has_lists)
        forget_parts(path / PARTS)
        return open_gallery(path, encoder.digest), refreshed
    finally:
        os.close(lock)


def _refuse_foreign(path: Path) -> None:
    if path.is_dir() and not is_index(path):
        others = sorted({entry.name for entry in path.iterdir()} - {LOCK, PARTS})
        others = [name for name in others if not is_own(name)]
        if others:
            raise DataError(
                f"{path} is not an index, but holds other files (first: {others[0]})",
                hint="name a new or an empty folder with --index",
            )


def _embed(
    encoder: TrainedEncoder,
    images: ImageList,
    given: Embedded | None,
    parts: Path,
    batch_size: int,
    workers: int | None,
) -> Embedded | None:
    """The vectors of new images, or those `given`; None without any."""
    if given is not None or not len(images):
        return given if len(images) else None
    return embed_images(encoder, images, batch_size=batch_size, parts=parts, workers=workers)


def _existing(images: ImageList, features: Path | None) -> tuple[list[int], list[IndexedFile]]:
    """Row in the list, and current state, of each image that still exists; of `features` the state is their file's."""
    rows, files = list[int](), list[IndexedFile]()
    for row, path in enumerate(images.paths):
        try:
            found = (features or images.root / path).stat()
        except (OSError, ValueError):
            continue  # it vanished after it was listed, or no file can have this name
        rows.append(row)
        files.append(IndexedFile(path, found.st_size, found.st_mtime_ns, *images.known_of(row)))
    return rows, files


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
    origin = {
        "encoder": encoder.digest,
        "reading": encoder.reading.to_dict(),
        "modality": source.modality.value,
        "source": str(source.path.resolve()),
        "splits": list(source.splits),
        "source_root": None if source.root is None else str(source.root.resolve()),
        "root": str(root),
    }
    write_generation(
        path,
        origin,
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
) -> tuple[Gallery, Path]:
    """Find or make the index of a gallery, and refresh it.

    * `source`: The images; or an index folder, which is refreshed if its images still exist.
    * `index`: The index folder; a default one below `below` when None.
    """
    folder = index or source.index_folder(below, encoder.digest)
    if is_index(source.path):
        folder, source = source.path, _recorded(source.path, source.modality)
        if not source.path.exists():
            logger.warning("%s does not exist: its index is searched without a refresh", source.path)
            opened = open_gallery(folder, encoder.digest)
            if opened.reading is None:
                logger.warning("%s was made by a version that read images in another way", folder)
            return opened, folder
    gallery, refreshed = refresh_gallery(folder, encoder, source, batch_size=batch_size, kind=kind, workers=workers)
    logger.info("%s: %s", folder, refreshed)
    return gallery, folder


def _recorded(path: Path, modality: Modality) -> GallerySource:
    record = read_record(path)
    root = record.source_root
    found = GallerySource(Path(record.source), record.modality, record.splits, None if root is None else Path(root))
    if found.modality is not modality:
        raise DataError(
            f"{path} holds {found.modality} images, but {modality} ones are needed",
            hint="choose the other --direction, or another gallery",
        )
    return found
