"""SYSU-MM01: 491 people under four visible and two infrared cameras.

`rand_perm_cam.mat`, only needed for the `official` gallery draw, is in `evaluation/data_split/` of wuancong/SYSU-MM01.

    SYSU-MM01/cam{1..6}/{person:04d}/{image:04d}.jpg      visible: cameras 1 2 4 5; infrared: cameras 3 6
    SYSU-MM01/exp/{train,val,test}_id.{txt,mat}           rand_perm_cam.mat
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import MAKE_AGAIN, CheckRow, DatasetCheck, SplitCounts, accept
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.datasets.sysu.archive import (
    LIST_FOLDER,
    MODALITY_OF_CAMERA,
    OBTAIN,
    PERMUTATION_FILE,
    SPLITS,
    Permutations,
    SysuArchive,
    image_number,
    open_archive,
    people_of_both_modalities,
    read_permutations,
)
from pipeline.data.synthetic.record import DRAWN_FILE
from pipeline.data.truth import Dataset, ImageRow, SplitTables, build_tables
from pipeline.errors import ConfigError, DataError

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
        images=_tables(archive, "the data set", SPLITS).images,
        training=_tables(archive, "training", splits_of_training[split]),
        validation=_tables(archive, "validation", ("val",)) if split == "train" else None,
        test=_tables(archive, "test", ("test",)),
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

    If the permutation file is present, each folder of the listed people is also compared with its entry.

    Raises:
        DataError: `drawn.json` has no counts, or the permutation file cannot be read.
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
    return DatasetCheck.explained(rows, _offenders(archive, permutations), notes)


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
    """Expected count and advice of every row."""
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
            expected[f"{TRAINED_ON}, people"] = sum(int(splits[split]["people"]) for split in TRAINED_SPLITS)
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
            elif missing:
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
)
