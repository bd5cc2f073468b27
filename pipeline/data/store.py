"""Decoded images on disk: one uint8 array a modality, built once for a file list and image size, then mapped."""

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
import PIL
from jaxtyping import UInt8
from pydantic import Field

from models.modality import Modality, PerModality
from pipeline.config.datasets import OnUnreadable
from pipeline.console import progress
from pipeline.data.decoding import FILTER, any_readable, completed_rows, decode_table, finish_array, split_outcomes
from pipeline.data.image_faults import fault_hint, fault_lines
from pipeline.data.image_files import (
    AS_STORED,
    ImageReading,
    Unreadable,
    log_adjustments,
    without_pillow_warnings,
)
from pipeline.data.images import ImageTable
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runtime.arrays import read_array
from pipeline.runtime.atomic_files import checked, read_json

logger = logging.getLogger(__name__)

FORMAT = 1
INDEX_FILE = "index.json"
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class StoreIndex:
    """What a store's `index.json` has to hold."""

    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    sha256: dict[str, str]
    pillow: str
    reading: ImageReading = AS_STORED
    unreadable: dict[str, str] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.sha256) != {modality.value for modality in Modality}:
            raise ValueError("it needs the digests of both modalities")


Shape = tuple[int, int, int, int]
"""Images, rows, columns, channels."""

_AS_BEFORE = (".jpg", ".jpeg", ".bmp")

_REBUILD = "remove that folder; the images are then decoded again"


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The decoded images of two tables, as read-only memory maps: row i of an array is image i of the table.

    The rows of `unreadable` images are black. The folder also contains the paths, which reveal identities: give
    training the arrays, not the store.
    """

    arrays: PerModality[UInt8[np.ndarray, "n height width 3"]]
    key: str
    folder: Path
    unreadable: tuple[Unreadable, ...] = ()


def open_store(
    tables: PerModality[ImageTable],
    *,
    height: int,
    width: int,
    cache_folder: Path,
    workers: int | None = None,
    reading: ImageReading = AS_STORED,
    unreadable: OnUnreadable = "refuse",
) -> ImageStore:
    """Open the decoded images of `tables`, and decode them first if necessary: 124,416 bytes an image at 288 x 144.

    `unreadable="skip"` accepts images that cannot be decoded: the store names them, the caller skips them. They
    are tried again at every opening, and the images decoded again once one can be read.

    The key covers relative paths, file sizes, image size, filter and reading: a moved data set keeps its store, a
    changed list does not. A killed build resumes at the last complete 1,024 rows; while one process builds, others
    wait.

    Raises:
        ConfigError: `cache_folder` is below the data root.
        DataError: Files are missing, images cannot be decoded (one error counts them all by kind), the disk is too
            small, or an existing store is damaged.

    Cost: Decoding: about 700 images a second on two cores (measured, JPEG 420 x 180).
    """
    for table in tables:
        _check_place(table, cache_folder)
    key = store_key(tables, height=height, width=width, reading=reading)
    folder = cache_folder / key
    shapes: PerModality[Shape] = tables.map(lambda table: (len(table), height, width, 3))
    try:
        if not folder.is_dir() or _is_mended(folder, tables, reading):
            cache_folder.mkdir(parents=True, exist_ok=True)
            with _locked(cache_folder / f"{key}.lock"):
                # Another process may have built it while this one waited.
                if folder.is_dir() and _is_mended(folder, tables, reading):
                    shutil.rmtree(folder.rename(folder.with_name(f"{key}.outdated")))
                if not folder.is_dir():
                    _build(tables, shapes, folder, key, workers or os.cpu_count() or 1, reading, unreadable)
    except OSError as error:
        raise DataError(
            f"decoded images cannot be written to {folder}: {error.strerror or error}",
            hint="make room or choose another folder; what is already decoded is kept",
        ) from error
    store = _open(folder, key, shapes)
    if store.unreadable and unreadable == "refuse":
        raise _unreadable_images(store.unreadable, sum(tables.map(len)), tables.visible.root)
    return store


def store_key(tables: PerModality[ImageTable], *, height: int, width: int, reading: ImageReading = AS_STORED) -> str:
    """SHA-256 over everything that determines a store's bytes, without absolute paths or dates.

    JPEG and BMP images that are read as stored have the key of earlier versions, which read no others as today.
    """
    files = {modality.value: _paths_and_sizes(table) for modality, table in tables.items()}
    content = {"format": FORMAT, "height": height, "width": width, "filter": FILTER, "files": files}
    as_before = all(path.lower().endswith(_AS_BEFORE) for table in tables for path in table.paths)
    if reading != AS_STORED or not as_before:
        content["reading"] = reading.to_dict()
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def damaged_arrays(store: ImageStore) -> tuple[Path, ...]:
    """The array files whose bytes have changed since they were written; reads the whole store."""
    digests = _read_index(store.folder).sha256
    arrays = (_array_path(store.folder, modality) for modality in Modality)
    return tuple(path for path in arrays if _sha256(path) != digests[path.stem])


@without_pillow_warnings()
def _build(
    tables: PerModality[ImageTable],
    shapes: PerModality[Shape],
    folder: Path,
    key: str,
    workers: int,
    reading: ImageReading,
    on_unreadable: OnUnreadable,
) -> None:
    """Fill a folder beside the final one and rename it last: a folder with the final name is complete."""
    partial = folder.with_name(f"{key}.partial")
    partial.mkdir(exist_ok=True)
    array_paths = PerModality.build(lambda modality: _array_path(partial, modality))
    done = array_paths.map_with(completed_rows, tables.map(len))
    total = sum(tables.map(len)) - sum(done)
    _, height, width, channels = shapes.visible
    _check_free_space(folder.parent, total * height * width * channels)
    logger.info("decoding %s images to %d x %d into %s", f"{total:,}", height, width, folder)
    started = time.perf_counter()
    outcomes = chain.from_iterable(
        decode_table(table, array_paths[modality], height=height, width=width, workers=workers, reading=reading)
        for modality, table in tables.items()
    )
    unreadable, seen = split_outcomes(progress(outcomes, "decode images", total=total, unit="images"))
    log_adjustments(seen, total)
    if unreadable and on_unreadable == "refuse":
        shutil.rmtree(partial)
        raise _unreadable_images(unreadable, sum(tables.map(len)), tables.visible.root)
    _write_index(partial, key, tables, shapes, reading, unreadable)
    for path in array_paths:  # last: without its marks an array is decoded again
        finish_array(path)
    partial.rename(folder)
    _sync_folder(folder.parent)
    seconds = time.perf_counter() - started
    logger.info("decoded %s images in %.0f s (%.0f images/s)", f"{total:,}", seconds, total / seconds)


def _unreadable_images(unreadable: tuple[Unreadable, ...], total: int, root: Path) -> DataError:
    return DataError(
        f"{len(unreadable):,} of {total:,} images below {root} cannot be read: {'; '.join(fault_lines(unreadable))}",
        hint=f"{fault_hint(unreadable)}, or skip them: data.unreadable=skip in the settings of a "
        "run, --skip-unreadable for other commands",
    )


def _is_mended(folder: Path, tables: PerModality[ImageTable], reading: ImageReading) -> bool:
    """Whether an image of a store that could not be read can be read now."""
    return any_readable(tables.visible.root, _read_index(folder).unreadable, reading)


def _write_index(
    folder: Path,
    key: str,
    tables: PerModality[ImageTable],
    shapes: PerModality[Shape],
    reading: ImageReading,
    unreadable: tuple[Unreadable, ...],
) -> None:
    index = {
        "format": FORMAT,
        "key": key,
        "height": shapes.visible[1],
        "width": shapes.visible[2],
        "filter": FILTER,
        "reading": reading.to_dict(),
        "pillow": PIL.__version__,
        "counts": {modality.value: len(table) for modality, table in tables.items()},
        "sha256": {modality.value: _sha256(_array_path(folder, modality)) for modality in Modality},
        "paths": {modality.value: list(table.paths) for modality, table in tables.items()},
    }
    if unreadable:
        index["unreadable"] = {one.path: one.reason for one in unreadable}
    with (folder / INDEX_FILE).open("w", encoding="utf-8") as file:
        json.dump(index, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)


def _open(folder: Path, key: str, shapes: PerModality[Shape]) -> ImageStore:
    index = _read_index(folder)
    if index.pillow != PIL.__version__:
        logger.info("%s was decoded with Pillow %s, this is %s", folder, index.pillow, PIL.__version__)
    arrays = PerModality.build(lambda modality: _map_array(_array_path(folder, modality), shapes[modality]))
    unreadable = tuple(Unreadable(path, reason) for path, reason in index.unreadable.items())
    return ImageStore(arrays=arrays, key=key, folder=folder, unreadable=unreadable)


def _map_array(path: Path, shape: Shape) -> UInt8[np.ndarray, "n height width 3"]:
    array = read_array(path, _REBUILD, mapped=True)
    if array.shape != shape or array.dtype != np.uint8:
        raise DataError(f"{path} holds {array.dtype} {array.shape}, expected uint8 {shape}", hint=_REBUILD)
    return np.asanyarray(array)


def _read_index(folder: Path) -> StoreIndex:
    try:
        content = read_json(folder / INDEX_FILE)
        if content is None:
            raise DataError(f"{folder / INDEX_FILE} cannot be read: it is missing", hint=_REBUILD)
        return checked(StoreIndex, content, folder / INDEX_FILE)
    except CheckpointError as error:
        raise DataError(error.message, hint=_REBUILD) from error


def paths_of_store(folder: Path) -> tuple[str, ...]:
    """The paths of all images of a store, visible ones first, relative to a folder that it does not record.

    Raises:
        DataError: Its index is missing or damaged.
    """
    return tuple(path for paths in _read_index(folder).paths.values() for path in paths)


def stores_below(cache_folder: Path) -> Iterator[tuple[Path, StoreIndex]]:
    """Every store in a folder, with its index; other folders are skipped.

    Raises:
        DataError: The index of a store is damaged.
    """
    for folder in sorted(path for path in cache_folder.glob("*") if re.fullmatch(r"[0-9a-f]{64}", path.name)):
        yield folder, _read_index(folder)


def _paths_and_sizes(table: ImageTable) -> list[tuple[str, int]]:
    entries: list[tuple[str, int]] = []
    missing: list[str] = []
    for path in table.paths:
        try:
            entries.append((path, (table.root / path).stat().st_size))
        except OSError:
            missing.append(path)
    if missing or not entries:
        detail = f": {', '.join(missing[:MAX_NAMED])}" if missing else ""
        raise DataError(
            f"{len(missing):,} of {len(table):,} {table.modality} images below {table.root} are missing{detail}",
            hint="restore the files, or read the data set again; each modality needs images",
        )
    return entries


def _check_place(table: ImageTable, cache_folder: Path) -> None:
    cache, root = cache_folder.resolve(), table.root.resolve()
    below = {PurePosixPath()} if table.fills_root else {PurePosixPath(path).parent for path in table.paths}
    if not {cache, *cache.parents}.isdisjoint((root / folder).resolve() for folder in below):
        raise ConfigError(
            f"decoded images would be written to {cache_folder}, below the data root {table.root}",
            hint="choose a folder for runs outside the data set, which is never changed",
        )


def _check_free_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"decoded images need {needed / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free",
            hint="make room, choose another folder, or lower images.height and images.width",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock until the process ends, however it ends; wait while another process holds it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that decodes these images")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _array_path(folder: Path, modality: Modality) -> Path:
    return folder / f"{modality}.npy"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
