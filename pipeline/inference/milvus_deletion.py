"""Deletion of images from a gallery in Milvus, and of strangers from its calibration."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError
from pipeline.inference.milvus_calibration import (
    calibration_store,
    delete_strangers,
    renew_calibration,
    strangers_in_milvus,
)
from pipeline.inference.milvus_gallery import MilvusGallery, read_milvus_record
from pipeline.inference.milvus_refresh import write_milvus_record


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of a gallery, of `images` ones, and of the strangers of its calibration.

    `damaged` is whether the calibration does not record whose vectors it has.
    """

    rows: tuple[int, ...]
    images: int
    strangers: tuple[int, ...] = ()
    damaged: bool = False


def choose_rows(gallery: MilvusGallery, chosen: Callable[[str, Path], bool]) -> Chosen:
    """The rows of images that are chosen by their path and the folder that it starts from.

    Cost: the transfer of all descriptions, without vectors.
    """
    rows, images = list[int](), 0
    for row, file in gallery.store.files():
        images += 1
        if chosen(file.path, gallery.root):
            rows.append(row)
    store = calibration_store(gallery)
    if store is None:
        return Chosen(tuple(rows), images)
    try:
        root, paths = strangers_in_milvus(store)
    except DataError:
        return Chosen(tuple(rows), images, damaged=True)
    return Chosen(tuple(rows), images, tuple(row for row, path in paths.items() if chosen(path, root)))


def delete_rows(gallery: MilvusGallery, chosen: Callable[[str, Path], bool]) -> None:
    """Delete images of a gallery and strangers of its calibration, which is then made again, or removed if damaged.

    A gallery of which no image is left is removed with its calibration. A killed call resumes when repeated.

    Raises:
        CheckpointError: The database fails.
    """
    store = gallery.store
    if not store.exists():
        return
    found, calibration = choose_rows(gallery, chosen), calibration_store(gallery)
    empty = len(found.rows) == found.images
    if calibration is not None and (empty or found.damaged):
        calibration.drop()
    elif calibration is not None and found.strangers:
        delete_strangers(calibration, found.strangers)
    if empty:
        store.drop()
        return
    if found.rows:
        gone = set(found.rows)
        stay = [file for row, file in store.files() if row not in gone]
        write_milvus_record(store, store.record() or {}, stay)  # first: a calibration of all images no longer fits
        store.remove(found.rows)
        store.compact()
    record = read_milvus_record(store, None)
    assert record is not None
    renew_calibration(MilvusGallery(store, record))
