"""SYSU-MM01 on disk: which folder holds which images, and which person belongs to which split."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from models.modality import Modality
from pipeline.data.list_files import read_mat, read_person_list
from pipeline.data.listing import images_by_person, report_unexpected, require_layout
from pipeline.data.synthetic.record import read_drawn
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

LIST_FOLDER = "exp"
PERMUTATION_FILE = "rand_perm_cam.mat"

Permutations = Mapping[tuple[int, int], Int64[np.ndarray, "_ _"]]
"""By (camera, person): ten orders of the numbers 1..n of the images in that folder, one a row."""

MODALITY_OF_CAMERA: Mapping[int, Modality] = {
    camera: Modality.INFRARED if camera in (3, 6) else Modality.VISIBLE for camera in range(1, 7)
}
SPLITS = ("train", "val", "test")

_PERMUTATIONS_HINT = (
    f"the image archive does not contain it: put evaluation/data_split/{PERMUTATION_FILE} of wuancong/SYSU-MM01 "
    f"(SHA-256 90402382dd587e05...) into {LIST_FOLDER}/; the draw `agw` works without it"
)
_PERSON = re.compile(r"[0-9]{4}")
_IMAGE = re.compile(r"([0-9]+)\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE)
OBTAIN = (
    "SYSU-MM01 is given out for research: sign the agreement in wuancong/SYSU-MM01, send it to the authors, and set "
    "data.root to the unpacked folder; `vireid data synth OUT --layout sysu` makes synthetic images of that layout"
)


@dataclass(frozen=True, slots=True)
class SysuArchive:
    """Content of a data root.

    `folders` has the sorted image names by (camera, person), `people` the ascending person numbers by split, `drawn`
    the content of `drawn.json`, None for photographs. `val_is_derived` if no list names the validation people.
    """

    root: Path
    folders: Mapping[tuple[int, int], tuple[str, ...]]
    people: Mapping[str, tuple[int, ...]]
    drawn: Mapping[str, Any] | None
    val_is_derived: bool = False


def open_archive(root: Path) -> SysuArchive:
    """List the images and read the people of each split.

    The authors' repository lacks the validation list: all people with images of both modalities who are in neither
    other list then count as validation.

    Raises:
        DataError: The folder is not laid out like SYSU-MM01, or a person is in two splits.
    """
    missing = [
        f"{LIST_FOLDER}/{split}_id.txt (or .mat)"
        for split in ("train", "test")
        if not any((root / LIST_FOLDER / f"{split}_id.{extension}").is_file() for extension in ("txt", "mat"))
    ]
    require_layout(root, "SYSU-MM01", [f"cam{camera}" for camera in MODALITY_OF_CAMERA], missing, OBTAIN)
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
    """The number that names an image, or None for any other name.

    >>> image_number("0007.JPG"), image_number("12.png"), image_number("0007.txt")
    (7, 12, None)
    """
    match = _IMAGE.fullmatch(name)
    return None if match is None else int(match[1])


def list_image_folders(root: Path) -> dict[tuple[int, int], tuple[str, ...]]:
    """The sorted image names of every person under every camera, cameras and people ascending."""
    folders: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    unexpected: list[str] = []
    for camera in MODALITY_OF_CAMERA:
        for person, path in images_by_person(root, f"cam{camera}", _PERSON, unexpected, _IMAGE):
            folders[camera, person].append(path.name)
    report_unexpected(root, unexpected)
    return {place: tuple(names) for place, names in folders.items()}


def people_of_both_modalities(folders: Mapping[tuple[int, int], tuple[str, ...]]) -> tuple[int, ...]:
    """All people with at least one visible and one infrared image, ascending."""
    seen = {modality: set[int]() for modality in Modality}
    for camera, person in folders:
        seen[MODALITY_OF_CAMERA[camera]].add(person)
    return tuple(sorted(seen[Modality.VISIBLE] & seen[Modality.INFRARED]))


def read_permutations(path: Path) -> Permutations:
    """The published permutations of image numbers that the `official` gallery draw follows.

    A camera's list may be shorter than the largest person number (333 against 533 entries): people beyond its end, like
    those with an empty entry, have no images there. Use `permutation_of` to look one up: it compares the length with
    the files on disk.

    Raises:
        DataError: The file is missing, unreadable, or an entry does not contain permutations of 1..n.

    Source: wuancong/SYSU-MM01, evaluation/data_split/rand_perm_cam.mat.
    """
    if not path.is_file():
        raise DataError(f"there is no {path}", hint=_PERMUTATIONS_HINT)
    permutations: dict[tuple[int, int], Int64[np.ndarray, "_ _"]] = {}
    for camera, cameras_cell in enumerate(read_mat(path, "rand_perm_cam").ravel(), start=1):
        for person, cell in enumerate(np.asarray(cameras_cell).ravel(), start=1):
            orders = np.atleast_2d(np.asarray(cell, dtype=np.int64))
            if orders.size == 0:
                continue
            num_images = orders.shape[1]
            if np.any(np.sort(orders, axis=1) != np.arange(1, num_images + 1)):
                raise DataError(
                    f"{path}: camera {camera}, person {person} is no permutation of 1..{num_images}",
                    hint=_PERMUTATIONS_HINT,
                )
            permutations[camera, person] = orders
    return permutations


def permutation_of(
    permutations: Permutations, camera: int, person: int, num_images: int
) -> Int64[np.ndarray, "trials n"]:
    """The ten orders of one folder's images, as 1-based image numbers.

    Raises:
        DataError: The permutations are not of `num_images` images.
    """
    orders = permutations.get((camera, person))
    published = 0 if orders is None else orders.shape[1]
    if orders is None or published != num_images:
        raise DataError(
            f"cam{camera}/{person:04d} holds {num_images} images, {PERMUTATION_FILE} has {published}",
            hint="the `official` draw needs the complete data set: unpack it again, or use the draw `agw`",
        )
    return orders


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
