"""The calibration of a gallery in Milvus: a collection `NAME_calibration` beside it, with the strangers and the scores.

Row 0 describes it, rows from 1 on are strangers with their vectors, and rows below 0 are the scores as text.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pipeline.data.image_list import ImageList, ListedImage
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.inference.calibration import (
    Calibrations,
    Strangers,
    calibrate_gallery,
    calibrations,
    check_strangers,
    embed_strangers,
    read_calibrations,
)
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.groups import Entries, Grouping
from pipeline.inference.index import Gallery, IndexedFile
from pipeline.inference.milvus_address import LONGEST_NAME, MilvusAddress
from pipeline.inference.milvus_gallery import MilvusGallery, refuse_groups
from pipeline.inference.milvus_store import MilvusStore
from pipeline.runtime import atomic_files

logger = logging.getLogger(__name__)

FORMAT = "calibration-1"
_SUFFIX = "_calibration"
_AGAIN = "calibrate again: `vireid calibrate`"
_SCORES = 2_000
"""In one text, of at most 65,535 bytes."""


@dataclass(frozen=True, slots=True)
class _About:
    """The description in row 0: whose calibration it is, where the strangers' paths start, and what was compared.

    `strangers` is their number of images, `counts` the number of scores of each grouping. `gallery` is the digest of
    the list of images that they were compared with, None until all scores are written.
    """

    format: str
    encoder: str
    root: str
    strangers: int
    groupings: tuple[Grouping, ...]
    counts: tuple[int, ...]
    gallery: str | None


def calibrate_index(
    gallery: Gallery | MilvusGallery,
    place: Path | MilvusAddress,
    encoder: TrainedEncoder,
    images: ImageList,
    groupings: Sequence[Grouping] = (),
    *,
    batch_size: int,
    workers: int | None = None,
) -> Calibrations:
    """Calibrate an opened gallery with images of strangers, see `calibrate_gallery`, where it is kept.

    In Milvus, unlike in a folder, a killed call embeds the strangers again. One call at a time may write a collection.

    Raises:
        ConfigError: Groups of gallery images in Milvus; or the collection's name is too long.
        DataError: See `calibrate_gallery`; or the collection of the calibration is one of something else.
        CheckpointError: The database fails; and see `calibrate_gallery`.

    Cost: one forward pass a stranger's image; in Milvus a search for each stranger and grouping, whose answers are
    numbers without vectors, and the transfer of the strangers' vectors.
    """
    if not isinstance(gallery, MilvusGallery):
        assert isinstance(place, Path)
        return calibrate_gallery(place, encoder, images, groupings, batch_size=batch_size, workers=workers)
    for grouping in groupings:
        refuse_groups(grouping)
    store = _store(gallery)
    if store is None:
        raise ConfigError(
            f"{gallery.store.address} cannot be calibrated: with {_SUFFIX} its name is too long",
            hint="choose a shorter name of the collection",
        )
    exists = store.exists()
    if exists and not _is_calibration(store):
        raise DataError(
            f"{store.address} is no calibration, but the one of {gallery.store.address} would be kept there",
            hint="choose another name of the collection",
        )
    check_strangers(images, gallery.root, (file for _, file in gallery.store.files()))
    strangers = embed_strangers(encoder, images, batch_size=batch_size, parts=None, workers=workers)
    found = _compared(strangers, gallery, groupings)
    if exists:
        store.drop()
    _write_strangers(store, strangers, encoder.digest)
    _write_scores(store, _described(store), found, gallery)
    return found


def calibrations_of(gallery: Gallery | MilvusGallery, place: Path | MilvusAddress) -> Calibrations:
    """The calibrations of an opened gallery; empty if it was never calibrated.

    In Milvus also, with a warning, if an unfinished refresh or calibration has left one that does not fit.

    Raises:
        DataError: The calibration is damaged; in a folder, also that of another index.
        CheckpointError: The database fails.
    """
    if not isinstance(gallery, MilvusGallery):
        assert isinstance(place, Path)
        return read_calibrations(place, gallery.encoder)
    store = calibration_store(gallery)
    if store is None:
        return {}
    about = _described(store)
    if not _fits(about, gallery):
        again = "refresh the gallery, or calibrate again"
        logger.warning("%s does not fit the images of %s: %s", store.address, gallery.store.address, again)
        return {}
    texts = store.texts([-1 - page for page in range(-(-sum(about.counts) // _SCORES))])
    try:
        scores = np.array([score for text in texts for score in json.loads(text)], np.float64)
        if len(scores) != sum(about.counts):
            raise ValueError(f"it has {len(scores):,} of {sum(about.counts):,} scores")
        parts = np.split(scores, [*accumulate(about.counts)][:-1])
        return {grouping: FalseMatch.fit(part) for grouping, part in zip(about.groupings, parts, strict=True)}
    except (ValueError, TypeError) as error:
        raise DataError(f"{store.address} is damaged: {error}", hint=_AGAIN) from error


def renew_calibration(gallery: MilvusGallery) -> None:
    """Compare the strangers of a gallery's calibration again if its images are others than those they were compared to.

    With a warning, the calibration is removed if it is damaged or unfinished, or a grouping no longer fits.
    """
    store = calibration_store(gallery)
    if store is None:
        return
    try:
        about = _described(store)
        if _fits(about, gallery):
            return
        if about.encoder != gallery.record.encoder:
            raise DataError("it is that of another encoder", hint=_AGAIN)
        found = _compared(_strangers(store, about), gallery, about.groupings)
    except DataError as error:
        logger.warning("%s is removed: %s; %s", store.address, error.message, _AGAIN)
        store.drop()
        return
    _write_scores(store, about, found, gallery)


def strangers_in_milvus(store: MilvusStore) -> tuple[Path, dict[int, str]]:
    """The folder that the paths of a calibration's strangers start from, and the path of each row.

    Raises:
        DataError: It is damaged.
    """
    return Path(_described(store).root), {row: file.path for row, file in store.files()}


def delete_strangers(store: MilvusStore, rows: Sequence[int]) -> None:
    """Delete strangers of a calibration, which fits no gallery before `renew_calibration`.

    If that is interrupted, the next refresh removes the calibration.

    Raises:
        DataError: It is damaged.
    """
    about = _described(store)
    store.write_record(asdict(replace(about, strangers=about.strangers - len(rows), gallery=None)), store.dim())
    store.remove(rows)
    store.compact()


def calibration_store(gallery: MilvusGallery) -> MilvusStore | None:
    """The collection of a gallery's calibration; None if it was never calibrated."""
    store = _store(gallery)
    return store if store is not None and store.exists() and _is_calibration(store) else None


def _store(gallery: MilvusGallery) -> MilvusStore | None:
    """The collection, which need not exist; None if its name would be too long."""
    address = gallery.store.address
    name = address.collection + _SUFFIX
    return None if len(name) > LONGEST_NAME else replace(gallery.store, address=replace(address, collection=name))


def _is_calibration(store: MilvusStore) -> bool:
    return (store.record() or {}).get("format") == FORMAT


def _described(store: MilvusStore) -> _About:
    try:
        return atomic_files.checked(_About, store.record(), Path(str(store.address)))
    except CheckpointError as error:
        raise DataError(error.message, hint=_AGAIN) from error


def _fits(about: _About, gallery: MilvusGallery) -> bool:
    return (about.encoder, about.gallery) == (gallery.record.encoder, gallery.record.digest)


def _compared(strangers: Strangers, gallery: MilvusGallery, groupings: Iterable[Grouping]) -> Calibrations:
    def best_of(asking: Entries, grouping: Grouping) -> Float64[np.ndarray, " q"]:  # noqa: ARG001 - none of the gallery
        rows_of: dict[str, list[int]] = {}
        for row, person in enumerate(asking.people()):
            rows_of.setdefault(person, []).append(row)
        best = np.empty(len(asking))
        for person, rows in rows_of.items():
            best[rows] = gallery.store.best(asking.vectors[rows], person)
        return best

    return calibrations(strangers, groupings, best_of)


def _strangers(store: MilvusStore, about: _About) -> Strangers:
    stored = store.get([row for row, _ in store.files()])
    if len(stored.rows) != about.strangers:
        found = f"{len(stored.rows):,} of {about.strangers:,} strangers"
        raise DataError(f"{store.address} is unfinished: it has {found}", hint=_AGAIN)
    files = (ListedImage(one.path, one.camera, one.person, one.track, one.time) for one in stored.files)
    return Strangers(about.root, tuple(files), stored.vectors)


def _write_strangers(store: MilvusStore, strangers: Strangers, encoder: str) -> None:
    """Make the collection; its description comes first, with the number of rows that a complete one has."""
    count, dim = strangers.vectors.shape
    store.create(dim)
    about = _About(FORMAT, encoder, strangers.root, count, groupings=(), counts=(), gallery=None)
    store.write_record(asdict(about), dim)
    files = [IndexedFile(one.path, 0, 0, one.camera, one.person, one.track, one.time) for one in strangers.files]
    store.put(range(1, count + 1), files, strangers.vectors)


def _write_scores(store: MilvusStore, about: _About, found: Calibrations, gallery: MilvusGallery) -> None:
    """Replace the scores; meanwhile the calibration fits no gallery."""
    counts = tuple(len(one.scores) for one in found.values())
    about = replace(about, groupings=tuple(found), counts=counts, gallery=None)
    store.write_record(asdict(about), gallery.record.dim)
    scores = np.concatenate([one.scores for one in found.values()]).tolist()
    pages = range(-(-len(scores) // _SCORES))
    texts = {-1 - page: json.dumps(scores[page * _SCORES : (page + 1) * _SCORES]) for page in pages}
    store.write_texts(texts, gallery.record.dim)
    store.write_record(asdict(replace(about, gallery=gallery.record.digest)), gallery.record.dim)
