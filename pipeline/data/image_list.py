"""Lists of images that a user names: a file, a folder with subfolders, a list of paths, or rows of a manifest."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from models.modality import Modality
from pipeline.config.datasets import TABLES
from pipeline.data.datasets.manifest.checks import find_files, folder_of_paths, numbers_of
from pipeline.data.datasets.manifest.rows import SPLITS, ManifestRow, read_rows
from pipeline.data.image_folders import list_folder
from pipeline.data.image_names import image_kinds, skipped_by_extension
from pipeline.data.path_list import read_path_list
from pipeline.data.roots import describe_absent
from pipeline.errors import ConfigError, DataError
from pipeline.runtime.names import is_there

logger = logging.getLogger(__name__)

_LIST = ".txt"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Known:
    """A manifest's metadata of images, empty if unknown, and the numbers of all its cameras and people."""

    cameras: tuple[str, ...]
    people: tuple[str, ...]
    tracks: tuple[str, ...]
    times: tuple[str, ...]
    camera_numbers: Mapping[str, int]
    person_numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image of a list: its path and what is known of it, empty if unknown."""

    path: str
    camera: str = ""
    person: str = ""
    track: str = ""
    time: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ImageList:
    """Images of either modality, with a manifest's metadata if there is one.

    Paths are POSIX and distinct, relative to `root` unless a list names absolute ones.
    """

    root: Path
    paths: tuple[str, ...]
    infrared: Bool[np.ndarray, " n"]
    known: Known | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, rows: Int64[np.ndarray, " m"]) -> "ImageList":
        """The images of `rows`, in this order."""

        def some(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows)

        known = self.known
        if known is not None:
            known = replace(
                known,
                cameras=some(known.cameras),
                people=some(known.people),
                tracks=some(known.tracks),
                times=some(known.times),
            )
        return ImageList(self.root, some(self.paths), self.infrared[rows], known)

    def known_of(self, row: int) -> tuple[str, str, str, str]:
        """Camera, person, track and time of an image, empty if unknown."""
        known = self.known
        if known is None:
            return "", "", "", ""
        return known.cameras[row], known.people[row], known.tracks[row], known.times[row]

    def listed(self) -> tuple[ListedImage, ...]:
        """All images with what is known of each."""
        return tuple(ListedImage(path, *self.known_of(row)) for row, path in enumerate(self.paths))

    def of(self, modality: Modality) -> Int64[np.ndarray, " m"]:
        """The rows of one modality's images."""
        return np.flatnonzero(self.infrared == (modality is Modality.INFRARED))


def list_images(
    source: Path, modality: Modality | None, splits: Sequence[str] = (), root: Path | None = None
) -> ImageList:
    """List the images of a path, without opening any.

    `source` is an image, a folder (searched at any depth), a `.txt` file with a path a line, or a manifest. Of a
    manifest, `modality` and `splits` select rows; otherwise `modality` is that of all images. Paths in a manifest or a
    list start from `root`, by default the file's folder.

    Raises:
        ConfigError: The modality is missing, a split does not exist, or `root` is given for a folder or an image.
        DataError: There is no such file or folder, it is damaged, or contains no image.
    """
    if not is_there(source):
        raise DataError(describe_absent(source, "file or folder"), hint="use an image, a folder, a list, or a manifest")
    is_file = source.is_file()
    if root is not None and not root.is_dir():
        raise DataError(describe_absent(root), hint="--root names the folder that paths start from")
    if root is not None and not (is_file and source.suffix.lower() in (*TABLES, _LIST)):
        raise ConfigError(
            f"{source} is neither a manifest nor a list", hint="omit the root: paths start from the folder"
        )
    if is_manifest(source):
        found = _from_manifest(source, modality, splits, root)
    else:
        if splits:
            raise ConfigError(f"{source} is not a manifest and has no splits", hint="omit --split")
        if modality is None:
            raise ConfigError(
                f"the images of {source} may be visible or infrared",
                hint="give the modality: it is never guessed from pixels",
            )
        start, paths = _plain_paths(source, root)
        found = ImageList(start, paths, np.full(len(paths), modality is Modality.INFRARED))
    if len(found) == 0:
        raise DataError(f"{source} contains no image", hint=f"images are {image_kinds()}")
    return found


def is_manifest(source: Path) -> bool:
    """Whether a path is a file with a manifest's extension."""
    return source.is_file() and source.suffix.lower() in TABLES


def _plain_paths(source: Path, root: Path | None) -> tuple[Path, tuple[str, ...]]:
    if source.is_dir():
        return source, _walk(source)
    if source.suffix.lower() == _LIST:
        start = root or source.parent
        return start, read_path_list(source, start)
    return source.parent, (source.name,)


def _walk(root: Path) -> tuple[str, ...]:
    """Images below a folder, without names that begin with a dot; links to files inside the folder count too."""
    found = list_folder(root)
    if note := skipped_by_extension(found.others):
        logger.info("%s: %s", root, note)
    if found.links:
        shown = ", ".join(found.links[:_SHOWN])
        logger.warning("%s: %d links to folders, or out of it, are not followed: %s", root, len(found.links), shown)
    if found.closed:
        shown = ", ".join(found.closed[:_SHOWN])
        logger.warning("%s: %d folders cannot be listed: %s", root, len(found.closed), shown)
    return found.images


def _from_manifest(path: Path, modality: Modality | None, splits: Sequence[str], root: Path | None) -> ImageList:
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise ConfigError(f"a manifest has no split {unknown[0]!r}", hint=f"choose from: {', '.join(SPLITS)}")
    rows, mistakes = read_rows(path)
    if mistakes:
        first = mistakes[0]
        raise DataError(
            f"{len(mistakes)} mistakes in {path}, the first in line {first.line}: {first.message}",
            hint="`vireid data check manifest` shows them all; docs/data-sets.md describes the columns",
        )
    start = folder_of_paths(path, rows, root)
    rows, _, notes = find_files(rows, start)
    for note in notes:
        logger.info("%s: %s", path.name, note)
    wanted: dict[str, ManifestRow] = {
        row.path: row
        for row in rows
        if (not splits or row.split in splits) and (modality is None or row.modality is modality)
    }
    chosen = wanted.values()
    return ImageList(
        root=start,
        paths=tuple(wanted),
        infrared=np.array([row.modality is Modality.INFRARED for row in chosen], dtype=bool),
        known=Known(
            cameras=tuple(row.camera for row in chosen),
            people=tuple(row.person for row in chosen),
            tracks=tuple(row.track for row in chosen),
            times=tuple(row.time for row in chosen),
            camera_numbers=numbers_of(row.camera for row in rows),
            person_numbers=numbers_of(row.person for row in rows),
        ),
    )
