"""LLCM: 1,064 people under nine cameras, visible by day and infrared by night.

Layout:

LLCM/idx/{train_vis,train_nir}.txt    a line: "nir/0001/0001_c01_s185535_f7010_nir.jpg 0"
LLCM/idx/test_id.txt                  the people tested on, one line with commas
LLCM/vis/ nir/                        training images at any depth, named {person:04d}_c{camera:02d}_...
LLCM/test_vis/cam{1..9}/{person:04d}/ test_nir/...     test images, named alike
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import (
    MAKE_AGAIN,
    CheckRow,
    DatasetCheck,
    SplitCounts,
    accept,
    drawn_split_counts,
    unpaired_notes,
)
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.listing import (
    LabelledPath,
    images_by_person,
    label_contradictions,
    name_missing_images,
    read_labelled_list,
    read_person_list,
    repetitions,
    report_unexpected,
    sorted_names,
    walk_images,
)
from pipeline.data.roots import require_layout
from pipeline.data.synthetic.record import read_drawn
from pipeline.data.truth import Dataset, ImageRow, build_tables
from pipeline.errors import DataError
from pipeline.runtime.names import Names

LIST_FOLDER = "idx"
TRAINING_FOLDERS = PerModality("vis", "nir")
TEST_FOLDERS = PerModality("test_vis", "test_nir")
TRAINING_LISTS = PerModality("train_vis.txt", "train_nir.txt")
TEST_LISTS = PerModality("test_vis.txt", "test_nir.txt")
TEST_PEOPLE = "test_id.txt"

_NAME = re.compile(r"([0-9]{4})_c([0-9]{2})_.*")
_CAMERA = re.compile(r"cam([1-9])")
_PERSON = re.compile(r"[0-9]{4}")
OBTAIN = (
    "LLCM is given out for research: sign the agreement in ZYK100/LLCM, send it to the authors, and set data.root to "
    "the unpacked folder; `vireid data synth OUT --layout llcm` makes synthetic images of that layout"
)


@dataclass(frozen=True, slots=True)
class TrainingLine:
    """A line of a training list: the image with the person and camera of its name, and the list's own label."""

    row: ImageRow
    label: int


@dataclass(frozen=True, slots=True)
class LlcmArchive:
    """Content of a data root.

    `lines` are those of the training lists, whether or not the image exists; `found` are all images below the training
    folders, which also contain copies of test images; `test` are all images in the test folders, listed or not;
    `drawn` is the content of `drawn.json`, None for photographs.
    """

    root: Path
    lines: PerModality[tuple[TrainingLine, ...]]
    found: PerModality[frozenset[str]]
    test: PerModality[tuple[ImageRow, ...]]
    test_people: tuple[int, ...]
    drawn: Mapping[str, Any] | None

    def training_rows(self, modality: Modality) -> tuple[ImageRow, ...]:
        """Listed images that exist, each once."""
        listed = dict.fromkeys(line.row for line in self.lines[modality])
        return tuple(row for row in listed if row.path in self.found[modality])

    def test_rows(self, modality: Modality) -> tuple[ImageRow, ...]:
        """The images of test people."""
        members = frozenset(self.test_people)
        return tuple(row for row in self.test[modality] if row.person in members)


def open_archive(root: Path) -> LlcmArchive:
    """Read the lists and list the images."""
    lists = (f"{LIST_FOLDER}/{name}" for name in (*TRAINING_LISTS, TEST_PEOPLE))
    missing = (name for name in lists if not (root / name).is_file())
    require_layout(root, "LLCM", (*TRAINING_FOLDERS, *TEST_FOLDERS), missing, OBTAIN)
    found = TRAINING_FOLDERS.map(lambda folder: frozenset(map(str, walk_images(root, PurePosixPath(folder)))))
    lines = PerModality.build(lambda modality: tuple(_read_training_list(root, modality, Names(found[modality]))))
    test_people = read_person_list(root / LIST_FOLDER, "test")
    assert test_people is not None, "the layout was checked"
    _check_disjoint(root, lines, test_people)
    unexpected: list[str] = []
    test = TEST_FOLDERS.map(lambda folder: tuple(_list_test_images(root, folder, unexpected)))
    report_unexpected(root, unexpected)
    return LlcmArchive(
        root=root,
        lines=lines,
        found=found,
        test=test,
        test_people=test_people,
        drawn=read_drawn(root),
    )


def person_and_camera(name: str) -> tuple[int, int] | None:
    """Person and camera in a file's name; None without them.

    >>> person_and_camera("0003_c01_s185734_f3195_nir.jpg"), person_and_camera("0003_c1_s2.jpg")
    ((3, 1), None)
    """
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


def _read_training_list(root: Path, modality: Modality, names: Names) -> Iterator[TrainingLine]:
    folder = TRAINING_FOLDERS[modality]
    for entry in read_labelled_list(root / LIST_FOLDER / TRAINING_LISTS[modality], names):
        if entry.path.parts[:1] != (folder,):
            raise DataError(
                f"{entry.where}: {str(entry.path)!r} is not below {folder}/",
                hint="restore the list from the data set: each names the training images of one modality",
            )
        yield TrainingLine(row=_row_of(entry), label=entry.label)


def _row_of(entry: LabelledPath) -> ImageRow:
    named = person_and_camera(entry.path.name)
    if named is None:
        raise DataError(
            f"{entry.where}: {entry.path.name!r} does not begin with a person and a camera",
            hint="images keep the names that they have in the data set, such as 0001_c01_s185535_f7010_nir.jpg",
        )
    return ImageRow(person=named[0], camera=named[1], path=str(entry.path))


def _list_test_images(root: Path, folder: str, unexpected: list[str]) -> Iterator[ImageRow]:
    for camera in sorted_names(root / folder):
        match = _CAMERA.fullmatch(camera)
        if match is None:
            unexpected.append(f"{folder}/{camera}")
            continue
        for person, path in images_by_person(root, f"{folder}/{camera}", _PERSON, unexpected):
            yield _test_row(root, path, person=person, camera=int(match[1]))


def _test_row(root: Path, path: PurePosixPath, *, person: int, camera: int) -> ImageRow:
    if person_and_camera(path.name) != (person, camera):
        raise DataError(
            f"{root}: {path} is in the folder of person {person:04d}, camera {camera}; its name does not begin with "
            f"{person:04d}_c{camera:02d}_",
            hint="name and folder must agree: unpack test_vis and test_nir again",
        )
    return ImageRow(person=person, camera=camera, path=str(path))


def _check_disjoint(root: Path, lines: PerModality[tuple[TrainingLine, ...]], test_people: tuple[int, ...]) -> None:
    trained = {line.row.person for of_modality in lines for line in of_modality}
    both = sorted(trained.intersection(test_people))
    if both:
        raise DataError(
            f"{root / LIST_FOLDER}: {len(both)} people are in train and in test, first: person {both[0]}",
            hint="restore the lists from the data set: a model must not be tested on people it was trained on",
        )


NAME = "llcm"

SPLITS = ("train", "test")

# Published. The paper's text also has 13,909 test images, a misprint: 8,680 + 7,166 = 46,767 - 30,921 = 15,846.
# Source: Zhang and Wang, CVPR 2023, and ZYK100/LLCM.
PUBLISHED_COUNTS: Mapping[str, SplitCounts] = {
    "train": SplitCounts(people=713, images=PerModality(16_946, 13_975)),
    "test": SplitCounts(people=351, images=PerModality(8_680, 7_166)),
}

_FILES = "unpack vis, nir, test_vis and test_nir again"
_LISTS = f"copy {LIST_FOLDER}/ again: it comes with the data set"
_UNPACK = "unpack the data set again: vis and test_vis hold visible images, nir and test_nir infrared ones"


def read_llcm(root: Path, *, allow_partial: bool = False) -> Dataset:
    """List the images of LLCM, or of a synthetic data set of the same layout: 713 training and 351 test people.

    Person and camera are read from the file's name; in the test folders they must agree with the folders. A camera has
    one number in both modalities. A camera without images of a modality, such as infrared test camera 3, is no error.

    Raises:
        DataError: The folder is something else, a name has no person or contradicts its folder, people are in training
            and in test, counts differ, or a modality is empty.

    Cost: 2 s for 46,767 images (measured) once the folder listings are in memory.
    """
    archive = open_archive(root)
    partial = accept(root, check_archive(archive), allow_partial)
    trained, tested = PerModality.build(archive.training_rows), PerModality.build(archive.test_rows)
    every_row = trained.map_with(lambda of_training, of_test: (*of_training, *of_test), tested)
    return Dataset(
        name=NAME,
        kind="licensed" if archive.drawn is None else "drawn",
        root=root,
        training=build_tables(root, trained, purpose="training", advice=_UNPACK),
        test=build_tables(root, tested, purpose="test", advice=_UNPACK),
        images=build_tables(root, every_row, purpose="the data set", advice=_UNPACK).images,
        partial=partial,
    )


def check_llcm(root: Path) -> DatasetCheck:
    """Compare LLCM with its published counts, or a synthetic one with its own; notes give the size of each gallery."""
    return check_archive(open_archive(root))


def check_archive(archive: LlcmArchive) -> DatasetCheck:
    """Compare an archive with the published counts, or a synthetic one with its own."""
    expected = PUBLISHED_COUNTS if archive.drawn is None else drawn_split_counts(archive.drawn, SPLITS)
    rows = (*_rows_of_splits(archive, expected), *_rows_of_lists(archive))
    return DatasetCheck.explained(rows, _offenders(archive), _notes(archive))


def _rows_of_splits(archive: LlcmArchive, expected: Mapping[str, SplitCounts]) -> Iterator[CheckRow]:
    trained = PerModality.build(archive.training_rows)
    found = {
        "train": SplitCounts(len({row.person for rows in trained for row in rows}), trained.map(len)),
        "test": SplitCounts(len(archive.test_people), PerModality.build(archive.test_rows).map(len)),
    }
    lists_advice, files_advice = (_LISTS, _FILES) if archive.drawn is None else 2 * (MAKE_AGAIN,)
    for split, should, does in (
        *((split, expected[split], found[split]) for split in SPLITS),
        ("all", _sum(expected), _sum(found)),
    ):
        yield CheckRow(f"{split}, people", should.people, does.people, lists_advice)
        for modality in Modality:
            yield CheckRow(f"{split}, {modality} images", should.images[modality], does.images[modality], files_advice)
        yield CheckRow(f"{split}, images", sum(should.images), sum(does.images), files_advice)


def _sum(counts: Mapping[str, SplitCounts]) -> SplitCounts:
    return SplitCounts(
        people=sum(one.people for one in counts.values()),
        images=PerModality.build(lambda modality: sum(one.images[modality] for one in counts.values())),
    )


def _rows_of_lists(archive: LlcmArchive) -> Iterator[CheckRow]:
    lists_advice, files_advice = (_LISTS, _FILES) if archive.drawn is None else 2 * (MAKE_AGAIN,)
    yield CheckRow("listed images that do not exist", 0, sum(_missing(archive).map(len)), files_advice)
    yield CheckRow("images that a list names again", 0, len(list(_repeated(archive))), lists_advice)
    yield CheckRow("labels and names that do not match", 0, len(list(_label_mismatches(archive))), lists_advice)


def _notes(archive: LlcmArchive) -> Iterator[str]:
    for modality in Modality:
        pairs = {(row.person, row.camera) for row in archive.test_rows(modality)}
        cameras = ", ".join(str(camera) for camera in sorted({camera for _, camera in pairs})) or "none"
        yield f"gallery of {modality} images: {len(pairs):,}, one a person and camera; test cameras: {cameras}"
    yield from unpaired_notes(archive.drawn)


def _offenders(archive: LlcmArchive) -> Iterator[str]:
    for modality, missing in _missing(archive).items():
        yield from name_missing_images(missing, {row.person for row in archive.training_rows(modality)}, modality)
    for modality in Modality:
        yield from (f"{place} is missing" for place in _missing_test_images(archive, modality))
    yield from _repeated(archive)
    yield from _label_mismatches(archive)
    yield from _people_outside_the_lists(archive)
    yield from _images_outside_the_lists(archive)


def _missing(archive: LlcmArchive) -> PerModality[dict[str, int]]:
    """The person of every image of a training list without a file, by person and path."""

    def missing(modality: Modality) -> dict[str, int]:
        rows = {line.row for line in archive.lines[modality] if line.row.path not in archive.found[modality]}
        return {row.path: row.person for row in sorted(rows, key=lambda row: (row.person, row.path))}

    return PerModality.build(missing)


def _missing_test_images(archive: LlcmArchive, modality: Modality) -> list[str]:
    """Images in the list of test images that a person's folders lack; people without any image are named elsewhere.

    The list's paths may lead to the copies in the training folders, so names are compared.
    """
    path = archive.root / LIST_FOLDER / TEST_LISTS[modality]
    if not path.is_file():
        return []
    rows = archive.test_rows(modality)
    names, people = {PurePosixPath(row.path).name for row in rows}, {row.person for row in rows}
    missing: list[str] = []
    for entry in read_labelled_list(path):
        named = person_and_camera(entry.path.name)
        if named is not None and named[0] in people and entry.path.name not in names:
            missing.append(f"{TEST_FOLDERS[modality]}/cam{named[1]}/{named[0]:04d}/{entry.path.name}")
    return sorted(missing)


def _repeated(archive: LlcmArchive) -> Iterator[str]:
    for modality, lines in archive.lines.items():
        for path in repetitions(line.row.path for line in lines):
            yield f"{LIST_FOLDER}/{TRAINING_LISTS[modality]} names {path} again"


def _label_mismatches(archive: LlcmArchive) -> Iterator[str]:
    for modality, lines in archive.lines.items():
        for contradiction in label_contradictions((line.label, line.row.person) for line in lines):
            yield f"{LIST_FOLDER}/{TRAINING_LISTS[modality]}: {contradiction}"


def _people_outside_the_lists(archive: LlcmArchive) -> Iterator[str]:
    """Test people without images, and other people with images in the test folders."""
    members = set(archive.test_people)
    for modality, rows in archive.test.items():
        present = {row.person for row in rows}
        for person in sorted(members - present):
            yield f"person {person} (test) has no {modality} images in {TEST_FOLDERS[modality]}"
        for person in sorted(present - members):
            yield f"person {person} has images in {TEST_FOLDERS[modality]} and is not in {LIST_FOLDER}/{TEST_PEOPLE}"


def _images_outside_the_lists(archive: LlcmArchive) -> Iterator[str]:
    """Training images that no list names; a person without any listed image is one offender."""
    members = set(archive.test_people)
    for modality, found in archive.found.items():
        listed = {line.row.path for line in archive.lines[modality]}
        trained = {line.row.person for line in archive.lines[modality]}
        unlisted: Counter[int] = Counter()
        for path in sorted(found - listed):
            named = person_and_camera(PurePosixPath(path).name)
            if named is None or named[0] in members:
                continue  # copies of test images
            if named[0] in trained:
                yield f"{path} is in no list"
            else:
                unlisted[named[0]] += 1
        for person, count in unlisted.items():
            yield f"person {person} has {count} images in {TRAINING_FOLDERS[modality]} and is in no list"


SPEC = DatasetSpec(
    datasets.LLCM, read_llcm, check_llcm, OBTAIN, PUBLISHED_COUNTS, (*TRAINING_FOLDERS, *TEST_FOLDERS, LIST_FOLDER)
)
