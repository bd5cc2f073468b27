"""LLCM: 1,064 people under nine cameras, visible by day and infrared by night.

Layout:

LLCM/idx/{train_vis,train_nir}.txt    a line: "nir/0001/0001_c01_s185535_f7010_nir.jpg 0"
LLCM/idx/test_id.txt                  the people tested on, one line with commas
LLCM/vis/ nir/                        training images at any depth, named {person:04d}_c{camera:02d}_...
LLCM/test_vis/cam{1..9}/{person:04d}/ test_nir/...     test images, named alike
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import MAKE_AGAIN, CheckRow, DatasetCheck, SplitCounts, accept, drawn_split_counts
from pipeline.data.datasets.llcm.archive import (
    LIST_FOLDER,
    OBTAIN,
    TEST_FOLDERS,
    TEST_LISTS,
    TEST_PEOPLE,
    TRAINING_FOLDERS,
    TRAINING_LISTS,
    LlcmArchive,
    open_archive,
    person_and_camera,
)
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.list_files import label_contradictions, name_missing_images, read_labelled_list, repetitions
from pipeline.data.truth import Dataset, build_tables

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
        images=build_tables(root, every_row, purpose="the data set", advice=_UNPACK).images,
        training=build_tables(root, trained, purpose="training", advice=_UNPACK),
        test=build_tables(root, tested, purpose="test", advice=_UNPACK),
        partial=partial,
    )


def check_llcm(root: Path) -> DatasetCheck:
    """Compare LLCM with its published counts, or a synthetic one with its own; notes give the size of each gallery.

    Raises:
        DataError: The folder is not laid out like LLCM, or contradicts itself about a person.
    """
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


SPEC = DatasetSpec(datasets.LLCM, read_llcm, check_llcm, OBTAIN, PUBLISHED_COUNTS)
