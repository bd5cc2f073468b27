"""Make and refresh galleries in Milvus: what is new or changed is embedded and inserted, what is gone is deleted."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.modality import Modality
from pipeline.data.image_files import Unreadable
from pipeline.data.values import moment
from pipeline.errors import DataError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.embedding import Embedded, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.gallery_images import (
    GalleryImages,
    Kind,
    Refreshed,
    gallery_images,
    origin_of,
    recorded_source,
    require_existing,
    wants_lists,
)
from pipeline.inference.index import GallerySource, IndexedFile
from pipeline.inference.milvus_address import MilvusAddress, address_of
from pipeline.inference.milvus_calibration import renew_calibration
from pipeline.inference.milvus_gallery import FORMAT, MilvusGallery, MilvusRecord, open_milvus, read_milvus_record
from pipeline.inference.milvus_store import FLAT, IVF, MilvusStore, connected

logger = logging.getLogger(__name__)

BLOCK = 4_096
"""Images that are embedded, inserted, and then let go."""


@dataclass(slots=True)
class _There:
    """What a collection has: the row of each image that stays, rows to delete, and those of a new description."""

    kept: dict[tuple[str, int, int], int] = field(default_factory=dict)
    stale: list[int] = field(default_factory=list)
    renamed: dict[int, IndexedFile] = field(default_factory=dict)
    last: int = 0


@dataclass(slots=True)
class _Inserted:
    """New images of a collection, and those that cannot be read."""

    files: list[IndexedFile] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


def open_or_refresh_milvus(
    address: MilvusAddress,
    source: GallerySource,
    encoder: TrainedEncoder,
    *,
    batch_size: int,
    kind: Kind = "auto",
    workers: int | None = None,
) -> MilvusGallery:
    """Refresh a collection with the images of `source`; or, where that is the address, with its own if they exist."""
    if address_of(source.path) is not None:
        opened = open_milvus(address, encoder.digest)
        source = recorded_source(opened.record, address, source.modality)
        if not source.path.exists():
            logger.warning("%s does not exist: %s is searched without a refresh", source.path, address)
            return opened
    gallery, refreshed = refresh_milvus(
        address, encoder, source, batch_size=batch_size, kind=kind, workers=workers
    )  # fmt: skip
    logger.info("%s: %s", address, refreshed)
    return gallery


def refresh_milvus(
    address: MilvusAddress,
    encoder: TrainedEncoder,
    source: GallerySource,
    *,
    batch_size: int,
    kind: Kind = "auto",
    workers: int | None = None,
) -> tuple[MilvusGallery, Refreshed]:
    """Make a collection, or bring it up to date. A killed call resumes when repeated; one call at a time may refresh.

    Images are identified as in `refresh_gallery`, and new ones are inserted before others are deleted. Then the
    strangers of its calibration are compared again, see `renew_calibration`.

    Raises:
        ConfigError: See `connected`.
        DataError: The collection is of another program, encoder, modality or folder; no image can be read; and see
            `list_images`.
        CheckpointError: The database fails.

    Cost: one `stat` an image, the transfer of its description, one forward pass a new image; 4,096 vectors in memory.
    If anything has changed and the gallery is calibrated, a search for each stranger, and their vectors in memory.
    """
    images = gallery_images(source, encoder)
    origin = origin_of(source, encoder, images.root)
    with connected(address) as store:
        before = read_milvus_record(store, encoder.digest) if store.exists() else None
        if before is not None:
            _require_same(before, source.modality, images.root, address)
        require_existing(images)
        found = _compare(store, images) if store.exists() else _There()
        if before is None and found.last:
            raise DataError(f"{address} is damaged: it has no description", hint="name another collection")
        inserted = _insert_new(store, images, found, encoder, origin, batch_size, workers)
        files = [file for file in images.files if file.state in found.kept] + inserted.files
        if not files:
            require_some(Embedded(np.empty((0, 0), np.float32), np.empty(0, np.int64), tuple(inserted.unreadable)))
        _describe_again(store, found.renamed)
        store.remove(found.stale)
        store.require_method(IVF if wants_lists(kind, len(files)) else FLAT, len(files))
        write_milvus_record(store, origin, files)
        record = read_milvus_record(store, encoder.digest)
        assert record is not None
        gallery = MilvusGallery(store, record)
        renew_calibration(gallery)
        gone = len(images.listed) - len(images.files) + len(found.stale)
        return gallery, Refreshed(len(found.kept), len(inserted.files), gone, len(inserted.unreadable))


def _require_same(record: MilvusRecord, modality: Modality, root: Path, address: MilvusAddress) -> None:
    if record.modality is not modality:
        raise DataError(
            f"{address} holds {record.modality} images, not {modality} ones", hint="name another collection"
        )
    if record.root != str(root):
        raise DataError(
            f"{address} holds the images of {record.root}, not those of {root}", hint="name another collection"
        )


def _compare(store: MilvusStore, images: GalleryImages) -> _There:
    """What of a collection stays; a second row of an image, which two refreshes at a time can leave, does not."""
    now = {file.state: file for file in images.files}
    found = _There()
    for row, file in store.files():
        found.last = max(found.last, row)
        if file.state not in now or file.state in found.kept:
            found.stale.append(row)
            continue
        found.kept[file.state] = row
        if now[file.state] != file:
            found.renamed[row] = now[file.state]
    return found


def _insert_new(
    store: MilvusStore,
    images: GalleryImages,
    found: _There,
    encoder: TrainedEncoder,
    origin: Mapping[str, Any],
    batch_size: int,
    workers: int | None,
) -> _Inserted:
    """Embed and insert the images that a collection does not have; it is made if it is missing."""
    new = [at for at, file in enumerate(images.files) if file.state not in found.kept]
    inserted, exists = _Inserted(), store.exists()
    for start in range(0, len(new), BLOCK):
        block = new[start : start + BLOCK]
        rows = np.array([images.rows[at] for at in block], dtype=np.int64)
        embedded = images.embed(encoder, rows, batch_size=batch_size, parts=None, workers=workers)
        assert embedded is not None
        inserted.unreadable += embedded.unreadable
        if not len(embedded.rows):
            continue
        vectors = unit_rows(embedded.vectors, "gallery").astype(np.float32)
        if not exists:
            store.create(vectors.shape[1])
            exists = True
        if not (found.last or inserted.files):
            write_milvus_record(store, origin, ())  # first: it names the encoder of the rows that a kill leaves
        files = [images.files[block[row]] for row in embedded.rows.tolist()]
        first = found.last + len(inserted.files) + 1
        store.put(range(first, first + len(files)), files, vectors)
        inserted.files += files
    return inserted


def _describe_again(store: MilvusStore, renamed: Mapping[int, IndexedFile]) -> None:
    """Replace the descriptions of images whose camera, person, track or time is another one now."""
    rows = sorted(renamed)
    for start in range(0, len(rows), BLOCK):
        stored = store.get(rows[start : start + BLOCK])
        store.put(stored.rows.tolist(), [renamed[row] for row in stored.rows.tolist()], stored.vectors)


def write_milvus_record(store: MilvusStore, origin: Mapping[str, Any], files: Sequence[IndexedFile]) -> None:
    """Write the description of a gallery: where it comes from, see `origin_of`, and what its images are."""
    times = sorted(moment(file.time) for file in files if file.time)
    span = (
        [time.replace(tzinfo=None).isoformat(timespec="seconds") for time in (times[0], times[-1])] if times else None
    )
    cameras = Counter(file.camera for file in files if file.camera)
    dim = store.dim()
    counts = {"images": len(files), "cameras": cameras, "span": span, "digest": _digest(files)}
    store.write_record({**origin, "format": FORMAT, "dim": dim, **counts}, dim)


def _digest(files: Sequence[IndexedFile]) -> str:
    """SHA-256 of a list of images, whatever its order."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(json.dumps(asdict(file)).encode() + b"\n")
    return digest.hexdigest()
