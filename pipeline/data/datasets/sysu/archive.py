"""SYSU-MM01 on disk: which folder holds which images, and which person belongs to which split."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from models.modality import Modality
from pipeline.data.datasets.sysu.lists import LIST_FOLDER, read_person_list
from pipeline.data.images import Kind
from pipeline.data.listing import report_unexpected, sorted_names
from pipeline.data.synthetic.record import read_drawn
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

MODALITY_OF_CAMERA: Mapping[int, Modality] = {
    1: Modality.VISIBLE,
    2: Modality.VISIBLE,
    3: Modality.INFRARED,
    4: Modality.VISIBLE,
    5: Modality.VISIBLE,
    6: Modality.INFRARED,
}
SPLITS = ("train", "val", "test")

_PERSON = re.compile(r"[0-9]{4}")
_IMAGE = re.compile(r"([0-9]+)\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE)
_OBTAIN = (
    "SYSU-MM01 is given out for research: sign the agreement in wuancong/SYSU-MM01, send it to the authors, and set "
    "data.root to the unpacked folder; `vireid data synth OUT --layout sysu` draws a stand-in"
)


@dataclass(frozen=True, slots=True)
class SysuArchive:
    """What lies under a data root.

    Attributes:
        root: The data root.
        folders: By (camera, person), the names of the images in that folder, sorted.
        people: The person numbers of each split, ascending.
        drawn: What `drawn.json` says, or None for photographs.
        val_is_derived: There is no list of validation people, and they were found by their images.
    """

    root: Path
    folders: Mapping[tuple[int, int], tuple[str, ...]]
    people: Mapping[str, tuple[int, ...]]
    drawn: Mapping[str, Any] | None
    val_is_derived: bool = False

    @property
    def kind(self) -> Kind:
        """Whether this is the licensed data set or a drawn stand-in."""
        return "licensed" if self.drawn is None else "drawn"


def open_archive(root: Path) -> SysuArchive:
    """List the images and read the people of each split.

    The validation list is missing from the authors' repository: it is then everybody with images of both modalities who
    is in neither other list.

    Raises:
        DataError: The folder is not laid out like SYSU-MM01, or a person is in two splits.

    Cost:
        One directory listing a camera and person; no file is opened but the lists.
    """
    _check_layout(root)
    folders = list_image_folders(root)
    lists = {split: read_person_list(root / LIST_FOLDER, split) for split in SPLITS}
    people = {split: members for split, members in lists.items() if members is not None}
    val_is_derived = "val" not in people
    if val_is_derived:
        others = {*people["train"], *people["test"]}
        people["val"] = tuple(person for person in people_of_both_modalities(folders) if person not in others)
        logger.info("no list of validation people: the %d others with images of both modalities", len(people["val"]))
    _check_disjoint(root, people)
    return SysuArchive(root=root, folders=folders, people=people, drawn=read_drawn(root), val_is_derived=val_is_derived)


def image_number(name: str) -> int | None:
    """The number that names an image, or None for the name of something else; parent folders have no say.

    >>> image_number("0007.JPG"), image_number("12.png"), image_number("0007.txt")
    (7, 12, None)
    """
    match = _IMAGE.fullmatch(name)
    return None if match is None else int(match[1])


def list_image_folders(root: Path) -> dict[tuple[int, int], tuple[str, ...]]:
    """The sorted image names of every person under every camera, cameras and people ascending.

    Dot files and `Thumbs.db` are passed over; anything else that is no image is reported once.
    """
    folders: dict[tuple[int, int], tuple[str, ...]] = {}
    unexpected: list[str] = []
    for camera in MODALITY_OF_CAMERA:
        for person in sorted_names(root / f"cam{camera}"):
            folder = PurePosixPath(f"cam{camera}", person)
            if not (_PERSON.fullmatch(person) and (root / folder).is_dir()):
                unexpected.append(str(folder))
                continue
            images: list[str] = []
            for name in sorted_names(root / folder):
                if image_number(name) is not None:
                    images.append(name)
                else:
                    unexpected.append(str(folder / name))
            if images:
                folders[camera, int(person)] = tuple(images)
    report_unexpected(root, unexpected)
    return folders


def people_of_both_modalities(folders: Mapping[tuple[int, int], tuple[str, ...]]) -> tuple[int, ...]:
    """Everybody with at least one visible and one infrared image, ascending."""
    seen = {modality: set[int]() for modality in Modality}
    for camera, person in folders:
        seen[MODALITY_OF_CAMERA[camera]].add(person)
    return tuple(sorted(seen[Modality.VISIBLE] & seen[Modality.INFRARED]))


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", hint=_OBTAIN)
    missing = [f"cam{camera}/" for camera in MODALITY_OF_CAMERA if not (root / f"cam{camera}").is_dir()]
    missing += [
        f"{LIST_FOLDER}/{split}_id.txt (or .mat)"
        for split in ("train", "test")
        if not any((root / LIST_FOLDER / f"{split}_id.{extension}").is_file() for extension in ("txt", "mat"))
    ]
    if missing:
        raise DataError(f"{root} is not laid out like SYSU-MM01: no {', '.join(missing)}", hint=_OBTAIN)


def _check_disjoint(root: Path, people: Mapping[str, tuple[int, ...]]) -> None:
    split_of: dict[int, str] = {}
    for split in SPLITS:
        for person in people[split]:
            if person in split_of:
                raise DataError(
                    f"{root / LIST_FOLDER}: person {person} is in {split_of[person]} and in {split}",
                    hint="restore the lists from the data set: a model must not be tested on people it was trained on",
                )
            split_of[person] = split
