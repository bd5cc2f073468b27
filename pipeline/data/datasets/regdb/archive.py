"""RegDB on disk: image folders, and the lists of the ten splits."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.modality import Modality, PerModality
from pipeline.data.list_files import read_labelled_list
from pipeline.data.listing import images_by_person, report_unexpected, require_layout
from pipeline.data.synthetic.record import read_drawn
from pipeline.errors import DataError

SPLITS = range(1, 11)
PARTS = ("train", "test")
LIST_FOLDER = "idx"
IMAGE_FOLDERS = PerModality("Visible", "Thermal")

_LIST_WORDS = PerModality("visible", "thermal")
_PERSON = re.compile(r"[0-9]{1,4}")
OBTAIN = (
    "RegDB is given out for research: request it from its authors (Dongguk University), and set data.root to the "
    "folder with Visible, Thermal and idx; `vireid data synth OUT --layout regdb` makes synthetic images of that layout"
)


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image that a list names: the person is its folder, the label means nothing outside the list."""

    path: str
    person: int
    label: int


@dataclass(frozen=True, slots=True)
class SplitLists:
    """The existing lists of one split by part and modality."""

    split: int
    lists: Mapping[tuple[str, Modality], tuple[ListedImage, ...]]

    def listed(self, part: str, modality: Modality) -> tuple[ListedImage, ...]:
        """The images of a list in its order; none where the list is missing."""
        return self.lists.get((part, modality), ())

    def people(self, part: str, modality: Modality) -> set[int]:
        """All people in a list."""
        return {image.person for image in self.listed(part, modality)}

    def all_people(self, part: str) -> set[int]:
        """All people in the list of either modality."""
        return {person for modality in Modality for person in self.people(part, modality)}

    @property
    def missing(self) -> tuple[str, ...]:
        """The missing lists, relative to the data root."""
        names = ((part, modality) for part in PARTS for modality in Modality)
        return tuple(list_name(self.split, *key) for key in names if key not in self.lists)


@dataclass(frozen=True, slots=True)
class RegdbArchive:
    """Content of a data root.

    `images` gives the person of every image file by its path, people ascending, then file names by code point; `drawn`
    is the content of `drawn.json`, None for photographs.
    """

    root: Path
    images: PerModality[Mapping[str, int]]
    splits: tuple[SplitLists, ...]
    drawn: Mapping[str, Any] | None


def open_archive(root: Path) -> RegdbArchive:
    """List the images and read the existing lists of all ten splits.

    Raises:
        DataError: The folder is not laid out like RegDB, or a line of a list is not a path and a label.
    """
    require_layout(root, "RegDB", (*IMAGE_FOLDERS, LIST_FOLDER), (), OBTAIN)
    unexpected: list[str] = []
    images = IMAGE_FOLDERS.map(lambda folder: _list_images(root, folder, unexpected))
    report_unexpected(root, unexpected)
    splits = tuple(SplitLists(split, dict(_read_lists(root, split))) for split in SPLITS)
    return RegdbArchive(root=root, images=images, splits=splits, drawn=read_drawn(root))


def list_name(split: int, part: str, modality: Modality) -> str:
    """Path of a list below the data root.

    >>> list_name(3, "test", Modality.INFRARED)
    'idx/test_thermal_3.txt'
    """
    return f"{LIST_FOLDER}/{part}_{_LIST_WORDS[modality]}_{split}.txt"


def _list_images(root: Path, folder: str, unexpected: list[str]) -> dict[str, int]:
    images = images_by_person(root, folder, _PERSON, unexpected)
    return {path: person for person, _, path in sorted((person, path.name, str(path)) for person, path in images)}


def _read_lists(root: Path, split: int) -> Iterator[tuple[tuple[str, Modality], tuple[ListedImage, ...]]]:
    for part in PARTS:
        for modality in Modality:
            path = root / list_name(split, part, modality)
            if path.is_file():
                yield (part, modality), tuple(_read_list(path, IMAGE_FOLDERS[modality]))


def _read_list(path: Path, folder: str) -> Iterator[ListedImage]:
    """The person of a line is the folder above the image; labels number people differently in each list."""
    for entry in read_labelled_list(path):
        parts = entry.path.parts
        if len(parts) != 3 or parts[0] != folder or not _PERSON.fullmatch(parts[1]):
            raise DataError(
                f"{entry.where}: {str(entry.path)!r} is not {folder}/PERSON/IMAGE",
                hint="restore the list from the data set: each names the images of one modality",
            )
        yield ListedImage(path=str(entry.path), person=int(parts[1]), label=entry.label)
