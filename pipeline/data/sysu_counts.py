"""Is this all of SYSU-MM01? Images and people of every split and camera, expected against found, first offenders."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.modality import Modality
from pipeline.data.sysu_archive import (
    DRAWN_FILE,
    MODALITY_OF_CAMERA,
    SPLITS,
    SysuArchive,
    image_number,
    people_of_both_modalities,
)
from pipeline.data.sysu_lists import LIST_FOLDER, PERMUTATION_FILE, Permutations, read_permutations
from pipeline.errors import DataError

MAX_OFFENDERS = 5

# Images and people by camera, computed from the authors' permutation file and lists; the sums are published.
# Source: wuancong/SYSU-MM01, evaluation/data_split.
PUBLISHED_COUNTS: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "train": {1: (4721, 194), 2: (5753, 195), 3: (5929, 293), 4: (4821, 283), 5: (4989, 294), 6: (4000, 200)},
    "val": {1: (0, 0), 2: (0, 0), 3: (1980, 99), 4: (990, 99), 5: (984, 96), 6: (0, 0)},
    "test": {1: (1374, 56), 2: (1565, 56), 3: (1883, 93), 4: (1918, 94), 5: (1918, 95), 6: (1920, 96)},
}
PUBLISHED_PEOPLE: Mapping[str, int] = {"train": 296, "val": 99, "test": 96}


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One quantity of a data set, as it should be and as it is."""

    name: str
    expected: int
    found: int

    @property
    def passed(self) -> bool:
        """Whether both agree."""
        return self.expected == self.found


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """All quantities of a data set, and what explains the first differences; `offenders` is empty when all agree."""

    rows: tuple[CheckRow, ...]
    offenders: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every row agrees."""
        return all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[CheckRow, ...]:
        """The rows that differ."""
        return tuple(row for row in self.rows if not row.passed)


def check_sysu_mm01(archive: SysuArchive) -> DatasetCheck:
    """Compare an archive with the published counts, or a drawn one with those it was written with.

    Where the permutation file is present, each folder of the people in the lists is also compared with its entry: the
    strongest check there is, since it knows every folder.

    Returns:
        Every row, and at most five offenders.

    Raises:
        DataError: `drawn.json` has no counts, or the permutation file cannot be read.
    """
    found = count_images(archive)
    expected = _published_counts() if archive.drawn is None else _drawn_counts(archive.drawn)
    rows = [CheckRow(name, count, found.get(name, 0)) for name, count in expected.items()]
    permutations: Permutations | None = None
    if (archive.root / LIST_FOLDER / PERMUTATION_FILE).is_file():
        permutations = read_permutations(archive.root)
        differing = len(list(_folders_against_permutations(archive, permutations)))
        rows.append(CheckRow(f"folders that differ from {PERMUTATION_FILE}", 0, differing))
    check = DatasetCheck(rows=tuple(rows), offenders=())
    if check.passed:
        return check
    offenders = [offender for _, offender in zip(range(MAX_OFFENDERS), _offenders(archive, permutations), strict=False)]
    return DatasetCheck(rows=check.rows, offenders=tuple(offenders))


def count_images(archive: SysuArchive) -> dict[str, int]:
    """Images and people by split, by split and camera, and by split and modality, under the names that rows have."""
    split_of = {person: split for split, people in archive.people.items() for person in people}
    counts: Counter[str] = Counter({f"{split}, people": len(archive.people[split]) for split in SPLITS})
    for (camera, person), names in archive.folders.items():
        if person in split_of:
            split = split_of[person]
            counts[f"{split}, camera {camera}, images"] += len(names)
            counts[f"{split}, camera {camera}, people"] += 1
            counts[f"{split}, {MODALITY_OF_CAMERA[camera]} images"] += len(names)
    return dict(counts)


def _published_counts() -> dict[str, int]:
    expected = {f"{split}, people": count for split, count in PUBLISHED_PEOPLE.items()}
    for split, cameras in PUBLISHED_COUNTS.items():
        for camera, (images, people) in cameras.items():
            expected[f"{split}, camera {camera}, images"] = images
            expected[f"{split}, camera {camera}, people"] = people
    return expected


def _drawn_counts(drawn: Mapping[str, Any]) -> dict[str, int]:
    """Images of each modality in each split; people and single cameras where `drawn.json` names them."""
    expected: dict[str, int] = {}
    try:
        for split in SPLITS:
            counts = drawn["counts"][split]
            if "people" in counts:
                expected[f"{split}, people"] = int(counts["people"])
            expected |= {f"{split}, {modality} images": int(counts[modality]) for modality in Modality}
            for camera, of_camera in counts.get("cameras", {}).items():
                expected |= {f"{split}, camera {camera}, {what}": int(of_camera[what]) for what in ("images", "people")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{DRAWN_FILE} does not say how many images of each modality each split has", hint="draw the data set again"
        ) from error
    return expected


def _offenders(archive: SysuArchive, permutations: Permutations | None) -> Iterator[str]:
    present = {person for _, person in archive.folders}
    for split in SPLITS:
        for person in archive.people[split]:
            if person not in present:
                yield f"person {person} ({split}) has no images"
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
            yield f"cam{camera}/{person:04d} holds {len(names)} images, {PERMUTATION_FILE} says {published}"
