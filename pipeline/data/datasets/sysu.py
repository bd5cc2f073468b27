"""SYSU-MM01: 491 people under four visible and two infrared cameras.

`rand_perm_cam.mat`, only needed for the `official` gallery draw, is in `evaluation/data_split/` of wuancong/SYSU-MM01.

    SYSU-MM01/cam{1..6}/{person:04d}/{image:04d}.jpg      visible: cameras 1 2 4 5; infrared: cameras 3 6
    SYSU-MM01/exp/{train,val,test}_id.{txt,mat}           rand_perm_cam.mat
"""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import (
    MAKE_AGAIN,
    CheckRow,
    DatasetCheck,
    SplitCounts,
    accept,
    unpaired_notes,
    unpaired_people,
)
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.listing import images_by_person, read_mat, read_person_list, report_unexpected
from pipeline.data.roots import require_layout
from pipeline.data.synthetic.record import DRAWN_FILE, read_drawn
from pipeline.data.truth import Dataset, ImageRow, SplitTables, build_tables
from pipeline.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

LIST_FOLDER = "exp"
PERMUTATION_FILE = "rand_perm_cam.mat"

Permutations = Mapping[tuple[int, int], Int64[np.ndarray, "_ _"]]
"""By (camera, person): ten orders of the numbers 1..n of the images in that folder, one a row."""

MODALITY_OF_CAMERA: Mapping[int, Modality] = {
    camera: Modality.INFRARED if camera in (3, 6) else Modality.VISIBLE for camera in range(1, 7)
}
CAMERA_FOLDERS = tuple(f"cam{camera}" for camera in MODALITY_OF_CAMERA)
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
    """
    missing = (
        f"{LIST_FOLDER}/{split}_id.txt (or .mat)"
        for split in ("train", "test")
        if not any((root / LIST_FOLDER / f"{split}_id.{extension}").is_file() for extension in ("txt", "mat"))
    )
    require_layout(root, "SYSU-MM01", CAMERA_FOLDERS, missing, OBTAIN)
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

    People without images under a camera are missing. Use `permutation_of` to look one up: it compares the length with
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
            try:
                orders = np.atleast_2d(np.asarray(cell, dtype=np.int64))
            except (TypeError, ValueError, OverflowError) as error:
                place = f"{path}: camera {camera}, person {person}"
                raise DataError(f"{place} holds no numbers: {error}", hint=_PERMUTATIONS_HINT) from error
            if orders.size == 0:
                continue
            num_images = orders.shape[-1]
            if orders.ndim != 2 or np.any(np.sort(orders, axis=1) != np.arange(1, num_images + 1)):
                raise DataError(
                    f"{path}: camera {camera}, person {person} is no permutation of 1..{num_images}",
                    hint=_PERMUTATIONS_HINT,
                )
            permutations[camera, person] = orders
    return permutations


def permutation_of(
    permutations: Permutations, camera: int, person: int, num_images: int
) -> Int64[np.ndarray, "trials n"]:
    """The ten orders of one folder's images, as 1-based image numbers."""
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


NAME = "sysu-mm01"


# Images and people by camera, computed from the authors' permutation file and lists; the sums are published.
# Source: wuancong/SYSU-MM01, evaluation/data_split.
CAMERA_COUNTS: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "train": {1: (4721, 194), 2: (5753, 195), 3: (5929, 293), 4: (4821, 283), 5: (4989, 294), 6: (4000, 200)},
    "val": {1: (0, 0), 2: (0, 0), 3: (1980, 99), 4: (990, 99), 5: (984, 96), 6: (0, 0)},
    "test": {1: (1374, 56), 2: (1565, 56), 3: (1883, 93), 4: (1918, 94), 5: (1918, 95), 6: (1920, 96)},
}
PUBLISHED_PEOPLE: Mapping[str, int] = {"train": 296, "val": 99, "test": 96}

TRAINED_SPLITS = ("train", "val")
TRAINED_ON = " + ".join(TRAINED_SPLITS)
"""Rows of their own: published results train on these people together."""

_KNOWN_TRAP = (
    "a copy with 367 people and 11,333 infrared images gave a Rank-1 of 45 to 51 where complete data gave 54 "
    "(zesenwu23/USL-VI-ReID#9): unpack cam1 to cam6 again, and take the lists from wuancong/SYSU-MM01"
)
_LISTS = (
    f"take the lists from evaluation/data_split/ of wuancong/SYSU-MM01 into {LIST_FOLDER}/; where val_id is missing, "
    "all others with images of both modalities are the validation people"
)
_PERMUTATIONS = (
    f"unpack the named folders again; {PERMUTATION_FILE} itself comes from evaluation/data_split/ of "
    "wuancong/SYSU-MM01 (SHA-256 90402382dd587e05...)"
)


def read_sysu_mm01(root: Path, *, split: str = "train_val", allow_partial: bool = False) -> Dataset:
    """List the images of SYSU-MM01, or of a synthetic data set of the same layout, and check all splits.

    `split` names the people to train on: `train_val` (395, used by published results), `train` (296, with 99 validation
    people) or `val` (99). The test tables contain all images of the 96 test people.

    Raises:
        ConfigError: No such split.
        DataError: The folder is something else, its lists contradict each other, counts differ, or a modality is empty.

    Cost: 0.7 s for 45,000 images (measured) once the folder listings are in memory.
    """
    splits_of_training = {"train_val": ("train", "val"), "train": ("train",), "val": ("val",)}
    if split not in splits_of_training:
        raise ConfigError(f"SYSU-MM01 has no training split {split!r}", hint=f"one of {', '.join(splits_of_training)}")
    archive = open_archive(root)
    partial = accept(root, check_sysu_mm01(archive), allow_partial)
    return Dataset(
        name=NAME,
        kind="licensed" if archive.drawn is None else "drawn",
        root=root,
        training=_tables(archive, "training", splits_of_training[split]),
        test=_tables(archive, "test", ("test",)),
        images=_tables(archive, "the data set", SPLITS).images,
        validation=_tables(archive, "validation", ("val",)) if split == "train" else None,
        partial=partial,
        split=split,
    )


def _tables(archive: SysuArchive, purpose: str, splits: tuple[str, ...]) -> SplitTables:
    members = {person for split in splits for person in archive.people[split]}

    def rows(modality: Modality) -> tuple[ImageRow, ...]:
        return tuple(
            ImageRow(person=person, camera=camera, path=f"cam{camera}/{person:04d}/{name}")
            for (camera, person), names in archive.folders.items()
            if person in members and MODALITY_OF_CAMERA[camera] is modality
            for name in names
        )

    advice = "unpack the data set again; cameras 3 and 6 are infrared, the others visible"
    return build_tables(archive.root, PerModality.build(rows), purpose=purpose, advice=advice)


def check_sysu_mm01(archive: SysuArchive) -> DatasetCheck:
    """Compare an archive with the published counts, or a synthetic one with its own.

    Each folder of the listed people is also compared with the permutation file, if it exists.
    """
    found = count_images(archive)
    expected = _published_counts() if archive.drawn is None else _drawn_counts(archive.drawn)
    rows = [CheckRow(name, count, found.get(name, 0), advice) for name, (count, advice) in expected.items()]
    permutations: Permutations | None = None
    if (archive.root / LIST_FOLDER / PERMUTATION_FILE).is_file():
        permutations = read_permutations(archive.root / LIST_FOLDER / PERMUTATION_FILE)
        differing = len(list(_folders_against_permutations(archive, permutations)))
        advice = _PERMUTATIONS if archive.drawn is None else MAKE_AGAIN
        rows.append(CheckRow(f"folders that differ from {PERMUTATION_FILE}", 0, differing, advice))
    derived = (
        f"{LIST_FOLDER}/val_id.txt (or .mat) is missing: the {len(archive.people['val'])} others with images of "
        "both modalities are the validation people"
    )
    notes = [derived] if archive.val_is_derived else []
    return DatasetCheck.explained(rows, _offenders(archive, permutations), [*notes, *unpaired_notes(archive.drawn)])


def count_images(archive: SysuArchive) -> dict[str, int]:
    """Images and people by split, camera and modality, under the names of the rows.

    The people of train and val together count only with images of both modalities, as all published ones have.
    """
    split_of = {person: split for split, people in archive.people.items() for person in people}
    counts: Counter[str] = Counter({f"{split}, people": len(archive.people[split]) for split in SPLITS})
    for (camera, person), names in archive.folders.items():
        if person in split_of:
            split, modality = split_of[person], MODALITY_OF_CAMERA[camera]
            counts[f"{split}, camera {camera}, images"] += len(names)
            counts[f"{split}, camera {camera}, people"] += 1
            counts[f"{split}, {modality} images"] += len(names)
            if split in TRAINED_SPLITS:
                counts[f"{TRAINED_ON}, {modality} images"] += len(names)
    complete = (split_of.get(person) for person in people_of_both_modalities(archive.folders))
    counts[f"{TRAINED_ON}, people"] = sum(split in TRAINED_SPLITS for split in complete)
    return dict(counts)


def _published_counts() -> dict[str, tuple[int, str]]:
    expected = {f"{TRAINED_ON}, people": (sum(PUBLISHED_PEOPLE[split] for split in TRAINED_SPLITS), _KNOWN_TRAP)}
    for modality in Modality:
        images = sum(
            CAMERA_COUNTS[split][camera][0]
            for split in TRAINED_SPLITS
            for camera, its_modality in MODALITY_OF_CAMERA.items()
            if its_modality is modality
        )
        expected[f"{TRAINED_ON}, {modality} images"] = (images, _KNOWN_TRAP)
    expected |= {f"{split}, people": (count, _LISTS) for split, count in PUBLISHED_PEOPLE.items()}
    for split, cameras in CAMERA_COUNTS.items():
        for camera, (num_images, num_people) in cameras.items():
            advice = f"unpack cam{camera}/ again"
            expected[f"{split}, camera {camera}, images"] = (num_images, advice)
            expected[f"{split}, camera {camera}, people"] = (num_people, advice)
    return expected


def _drawn_counts(drawn: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Images of each modality in each split; people and single cameras where `drawn.json` names them."""
    expected: dict[str, int] = {}
    try:
        splits = {split: drawn["counts"][split] for split in SPLITS}
        if all("people" in splits[split] for split in TRAINED_SPLITS):
            everyone = sum(int(splits[split]["people"]) for split in TRAINED_SPLITS)
            expected[f"{TRAINED_ON}, people"] = everyone - sum(unpaired_people(drawn))
        for modality in Modality:
            expected[f"{TRAINED_ON}, {modality} images"] = sum(int(splits[split][modality]) for split in TRAINED_SPLITS)
        for split, counts in splits.items():
            if "people" in counts:
                expected[f"{split}, people"] = int(counts["people"])
            expected |= {f"{split}, {modality} images": int(counts[modality]) for modality in Modality}
            for camera, of_camera in counts.get("cameras", {}).items():
                expected |= {f"{split}, camera {camera}, {what}": int(of_camera[what]) for what in ("images", "people")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{DRAWN_FILE} lacks the numbers of images of each split", hint=MAKE_AGAIN) from error
    return {name: (count, MAKE_AGAIN) for name, count in expected.items()}


def _offenders(archive: SysuArchive, permutations: Permutations | None) -> Iterator[str]:
    present = {
        modality: {person for camera, person in archive.folders if MODALITY_OF_CAMERA[camera] is modality}
        for modality in Modality
    }
    for split in SPLITS:
        for person in archive.people[split]:
            missing = [modality for modality in Modality if person not in present[modality]]
            if len(missing) == 2:
                yield f"person {person} ({split}) has no images"
            elif missing and not (split == "train" and any(unpaired_people(archive.drawn))):
                yield f"person {person} ({split}) has no {missing[0]} images"
    if permutations is not None:
        yield from _folders_against_permutations(archive, permutations)
    for (camera, person), names in archive.folders.items():
        numbers = {number for name in names if (number := image_number(name)) is not None}
        for number in sorted(set(range(1, max(numbers) + 1)) - numbers):
            yield f"cam{camera}/{person:04d}/{number:04d} is missing"
    listed = {person for people in archive.people.values() for person in people}
    for person in people_of_both_modalities(archive.folders):
        if person not in listed:
            yield f"person {person} has images of both modalities and is in no list"


def _folders_against_permutations(archive: SysuArchive, permutations: Permutations) -> Iterator[str]:
    listed = {person for people in archive.people.values() for person in people}
    for camera, person in sorted({*archive.folders, *permutations}):
        if person not in listed:
            continue
        orders, names = permutations.get((camera, person)), archive.folders.get((camera, person), ())
        published = 0 if orders is None else orders.shape[1]
        if published != len(names):
            yield f"cam{camera}/{person:04d} holds {len(names)} images, {PERMUTATION_FILE} has {published}"


def _split_counts(split: str) -> SplitCounts:
    images = PerModality.build(
        lambda modality: sum(
            count for camera, (count, _) in CAMERA_COUNTS[split].items() if MODALITY_OF_CAMERA[camera] is modality
        )
    )
    return SplitCounts(PUBLISHED_PEOPLE[split], images)


SPEC = DatasetSpec(
    datasets.SYSU,
    read_sysu_mm01,
    lambda root: check_sysu_mm01(open_archive(root)),
    OBTAIN,
    {split: _split_counts(split) for split in SPLITS},
    (*CAMERA_FOLDERS, LIST_FOLDER),
)
