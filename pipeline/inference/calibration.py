"""Calibration of a gallery's scores by strangers: people who are not in it, or whose own images are excluded by name.

It is a part of the index, `calibration-*.npz`, and is made again with every new generation from the strangers' vectors.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import TypeAdapter, ValidationError

from pipeline.data.image_list import ImageList, ListedImage
from pipeline.errors import DataError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.embedding import embed_images, forget_parts, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import FEWEST, FalseMatch
from pipeline.inference.groups import SINGLE, Entries, Grouping, group_entries
from pipeline.inference.index import INDEX, LOCK, STRANGER_PARTS, Gallery, IndexedFile, open_gallery, read_record
from pipeline.runtime import atomic_files
from pipeline.runtime.arrays import read_arrays
from pipeline.runtime.folder_lock import lock_folder

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 64_000_000
_AGAIN = "calibrate again: `vireid calibrate`"

Calibrations = Mapping[Grouping, FalseMatch]
"""What scores mean, for each way of grouping that was calibrated."""

BestOf = Callable[[Entries, Grouping], Float64[np.ndarray, " q"]]
"""The highest score of each stranger, or group of strangers, in a gallery; minus infinity without any."""


@dataclass(frozen=True, slots=True, eq=False)
class Strangers:
    """Images of strangers, as queries of a gallery: unit vectors, and what is known of each; paths are from `root`."""

    root: str
    files: tuple[ListedImage, ...]
    vectors: Float32[np.ndarray, "n dim"]


@dataclass(frozen=True, slots=True)
class _About:
    """The text in a calibration file; `index` is the digest of the gallery's list of files."""

    index: str
    encoder: str
    root: str
    groupings: tuple[Grouping, ...]
    files: tuple[ListedImage, ...]


def calibrate_gallery(
    folder: Path,
    encoder: TrainedEncoder,
    images: ImageList,
    groupings: Iterable[Grouping] = (),
    *,
    batch_size: int,
    workers: int | None = None,
) -> Calibrations:
    """Calibrate the index in a folder with images of strangers, for single images and for each of `groupings`.

    A gallery image of a stranger's own name is excluded from the comparison; without names, none is: see
    `check_strangers`, which warns. A grouping with too few strangers is skipped: see `calibrations`.

    Raises:
        DataError: No image can be read, fewer than 20 strangers, images of the gallery without a name among them, no
            stranger can be compared; and see `open_gallery` and `group_entries`.
        CheckpointError: Another process writes the index, or it cannot be written.

    Cost: one forward pass a stranger's image, and one comparison with every gallery image for each grouping; 64 MB.
    """
    lock = lock_folder(folder, LOCK)
    try:
        gallery = open_gallery(folder, encoder.digest)
        check_strangers(images, gallery.root, gallery.files)
        strangers = embed_strangers(
            encoder, images, batch_size=batch_size, parts=folder / STRANGER_PARTS, workers=workers
        )
        found = _compared(strangers, gallery, groupings)
        record = read_record(folder)
        name = f"calibration-{record.generation:06d}.npz"
        _write(folder / name, strangers, found, encoder.digest, _digest(folder / record.files))
        atomic_files.write_json(folder / INDEX, (atomic_files.read_json(folder / INDEX) or {}) | {"calibration": name})
        forget_parts(folder / STRANGER_PARTS)
        return found
    finally:
        os.close(lock)


def embed_strangers(
    encoder: TrainedEncoder, images: ImageList, *, batch_size: int, parts: Path | None, workers: int | None
) -> Strangers:
    """Embed images of strangers; see `embed_images`. DataError if none can be read."""
    embedded = require_some(
        embed_images(encoder, images, batch_size=batch_size, parts=parts, workers=workers, description="strangers")
    )
    vectors = unit_rows(embedded.vectors, "strangers").astype(np.float32)
    return Strangers(str(images.root.resolve()), images.only(embedded.rows).listed(), vectors)


def read_calibrations(folder: Path, encoder: str) -> Calibrations:
    """The calibrations of an index in a folder; empty if it was never calibrated.

    Raises:
        DataError: The calibration is damaged, or that of another index.
    """
    record = read_record(folder)
    if record.calibration is None:
        return {}
    path = folder / record.calibration
    about = _about(path)
    if about.encoder != encoder or about.index != _digest(folder / record.files):
        raise DataError(f"{path} is the calibration of another index", hint=_AGAIN)
    arrays, _ = read_arrays(path, [f"scores-{number}" for number in range(len(about.groupings))], _AGAIN)
    try:
        return {
            grouping: FalseMatch.fit(arrays[f"scores-{number}"]) for number, grouping in enumerate(about.groupings)
        }  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}", hint=_AGAIN) from error


def strangers_of(file: Path) -> tuple[Path, tuple[str, ...]]:
    """The paths of the strangers in a calibration file, and the folder that they start from; DataError if damaged."""
    about = _about(file)
    return Path(about.root), tuple(one.path for one in about.files)


def carry_over(
    before: Path, after: Path, gallery: Gallery, files: Path, kept: Callable[[str, Path], bool] | None = None
) -> str | None:
    """Calibrate a new generation with the strangers of the calibration file `before`; the name of the new file.

    `kept` accepts strangers by path and folder; None accepts all. None is returned, with a warning, if that file is
    damaged or a grouping no longer fits: the index is more than its calibration.
    """
    try:
        about = _about(before)
        arrays, _ = read_arrays(before, ("vectors",), _AGAIN)
        rows = [row for row, one in enumerate(about.files) if kept is None or kept(one.path, Path(about.root))]
        strangers = Strangers(about.root, tuple(about.files[row] for row in rows), arrays["vectors"][rows])
        found = _compared(strangers, gallery, about.groupings)
    except (DataError, KeyError) as error:
        logger.warning("%s is dropped: %s; %s", before, error, _AGAIN)
        return None
    _write(after, strangers, found, gallery.encoder, _digest(files))
    return after.name


def _compared(strangers: Strangers, gallery: Gallery, groupings: Iterable[Grouping]) -> Calibrations:
    def best_of(asking: Entries, grouping: Grouping) -> Float64[np.ndarray, " q"]:
        return best_scores(asking, group_entries(gallery.files, gallery.vectors, grouping.gallery, grouping.by))

    return calibrations(strangers, groupings, best_of)


def calibrations(strangers: Strangers, groupings: Iterable[Grouping], best_of: BestOf) -> Calibrations:
    """What scores mean, for single images and for each of `groupings`; one with fewer than 20 groups is skipped.

    Raises:
        DataError: Fewer than 20 single images can be compared; and see `group_entries`.
    """
    found: dict[Grouping, FalseMatch] = {}
    for grouping in dict.fromkeys((SINGLE, *groupings)):
        best = best_of(group_entries(strangers.files, strangers.vectors, grouping.query, grouping.by), grouping)
        best = best[np.isfinite(best)]
        if len(best) >= FEWEST:
            found[grouping] = FalseMatch.fit(best)
            continue
        few = f"{len(best)} strangers can be compared with the gallery ({grouping}), at least {FEWEST} are needed"
        if grouping == SINGLE:
            raise DataError(few, hint="name more images with --strangers, of people who are not in the gallery")
        logger.warning("%s: this grouping is not calibrated", few)
    return found


def best_scores(asking: Entries, there: Entries) -> Float64[np.ndarray, " q"]:
    """The highest similarity of each entry to entries of other people; -inf without any.

    Entries of the same name are the same person; an unknown name differs from all.
    """
    numbers: dict[str, int] = {}
    people = [
        np.array([numbers.setdefault(name, len(numbers)) if name else unknown for name in entries.people()])
        for entries, unknown in ((asking, -1), (there, -2))
    ]
    best = np.empty(len(asking))
    rows = max(1, _BLOCK_BYTES // (4 * len(there)))
    for start in range(0, len(asking), rows):
        block = slice(start, start + rows)
        similarity = asking.vectors[block] @ there.vectors.T
        similarity[people[0][block, None] == people[1][None, :]] = -np.inf
        best[block] = similarity.max(axis=1)
    return best


def check_strangers(images: ImageList, root: Path, gallery: Iterable[IndexedFile]) -> None:
    """Log which images are excluded by name, and warn of images without a name, of which none is.

    Raises:
        DataError: Images of the gallery are strangers without a name: they would make every score look low.
    """
    people = [images.known_of(row)[1] for row in range(len(images))]
    unnamed = {
        str((images.root / path).resolve()): path
        for path, person in zip(images.paths, people, strict=True)
        if not person
    }
    there, shared = Counter[str](), list[str]()
    for file in gallery:  # once: may be read from a database
        there[file.person] += 1
        if not file.person and (path := str(root / file.path)) in unnamed:
            shared.append(unnamed[path])
    if shared:
        raise DataError(
            f"{len(shared):,} images are strangers and in the gallery, first: {shared[0]}",
            hint="strangers are people who cannot be in the gallery, such as those of another site; or name the people "
            "of both in manifests",
        )
    own = [person for person in people if person and person in there]
    if own:
        numbers = f"{len(own):,}", f"{len(set(own)):,}"
        logger.info("%s images of strangers show %s people of the gallery, whose images are excluded by name", *numbers)
    if unnamed or there[""]:
        logger.warning(
            "%s of %s images of strangers and %s of %s of the gallery have no person's name, and none of these is "
            "excluded: the calibration holds only if no stranger is in the gallery%s",
            *(f"{number:,}" for number in (len(unnamed), len(images), there[""], there.total())),
            _neighbours(images.root, root),
        )


def _neighbours(strangers: Path, gallery: Path) -> str:
    """Words for two folders of one site: the same, one in the other, or side by side; empty for others."""
    one, other = strangers.resolve(), gallery.resolve()
    common = Path(os.path.commonpath([one, other]))
    if common in (one, other) or common == one.parent == other.parent:
        return f"; both are below {common}, as images of the same people would be"
    return ""


def _write(path: Path, strangers: Strangers, found: Calibrations, encoder: str, index: str) -> None:
    about = {
        "index": index,
        "encoder": encoder,
        "root": strangers.root,
        "groupings": [asdict(grouping) for grouping in found],
        "files": [asdict(file) for file in strangers.files],
    }
    columns: dict[str, Any] = {f"scores-{number}": one.scores for number, one in enumerate(found.values())}
    columns |= {"about": np.array(json.dumps(about)), "vectors": strangers.vectors}

    def write(file: BinaryIO) -> None:
        np.savez(file, allow_pickle=False, **columns)

    atomic_files.replace_file(path, write, archive=True)


def _about(path: Path) -> _About:
    arrays, _ = read_arrays(path, ("about",), _AGAIN)
    try:
        return TypeAdapter(_About).validate_json(str(arrays["about"]))
    except (KeyError, ValidationError) as error:
        raise DataError(f"{path} is damaged: it has no readable text `about`", hint=_AGAIN) from error


def _digest(files: Path) -> str:
    with files.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
