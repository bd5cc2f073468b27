"""Is this all of LLCM? People and images of train and test, expected against found, and the sizes of its galleries."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePosixPath

from models.modality import Modality, PerModality
from pipeline.data.check import MAX_OFFENDERS, CheckRow, DatasetCheck
from pipeline.data.datasets.llcm.archive import (
    LIST_FOLDER,
    TEST_FOLDERS,
    TEST_LISTS,
    TEST_PEOPLE,
    TRAINING_FOLDERS,
    TRAINING_LISTS,
    LlcmArchive,
    person_and_camera,
)
from pipeline.data.labelled_lists import label_contradictions, name_missing_images, read_labelled_list, repetitions
from pipeline.data.split_counts import SplitCounts, drawn_split_counts

SPLITS = ("train", "test")

# Published. The paper's text also says 13,909 test images: a misprint, for 8,680 + 7,166 = 46,767 - 30,921 = 15,846.
# Source: Zhang and Wang, CVPR 2023, and ZYK100/LLCM.
PUBLISHED_COUNTS: Mapping[str, SplitCounts] = {
    "train": SplitCounts(people=713, images=PerModality(16_946, 13_975)),
    "test": SplitCounts(people=351, images=PerModality(8_680, 7_166)),
}

_FILES = "unpack vis, nir, test_vis and test_nir again"
_LISTS = f"copy {LIST_FOLDER}/ again: it comes with the data set"
_DRAWN = "draw the data set again"


def check_archive(archive: LlcmArchive) -> DatasetCheck:
    """Compare an archive with the published counts, or a drawn one with those it was written with.

    Which cameras took test images, and how large the galleries are, is reported and not judged: the published data set
    has no infrared test camera 3.

    Returns:
        Every row, at most five offenders, and a note a modality.

    Raises:
        DataError: `drawn.json` has no counts.
    """
    expected = PUBLISHED_COUNTS if archive.drawn is None else drawn_split_counts(archive.drawn, SPLITS)
    rows = (*_rows_of_splits(archive, expected), *_rows_of_lists(archive))
    check = DatasetCheck(rows=rows, offenders=(), notes=tuple(_notes(archive)))
    if check.passed:
        return check
    return DatasetCheck(rows=rows, offenders=tuple(islice(_offenders(archive), MAX_OFFENDERS)), notes=check.notes)


def _rows_of_splits(archive: LlcmArchive, expected: Mapping[str, SplitCounts]) -> Iterator[CheckRow]:
    rows = {
        "train": PerModality.build(archive.training_rows),
        "test": PerModality.build(archive.test_rows),
    }
    found = {
        "train": SplitCounts(
            people=len({row.person for of_modality in rows["train"] for row in of_modality}),
            images=rows["train"].map(len),
        ),
        "test": SplitCounts(people=len(archive.test_people), images=rows["test"].map(len)),
    }
    lists_advice, files_advice = (_LISTS, _FILES) if archive.drawn is None else (_DRAWN, _DRAWN)
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
    lists_advice, files_advice = (_LISTS, _FILES) if archive.drawn is None else (_DRAWN, _DRAWN)
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
    """What the list of test images names and the folders of a person lack; people who lack all are named elsewhere.

    The list is no source of images, since folders are what is tested on: it only helps to find what is gone. Its paths
    may lead to the copies in the training folders, so that names are compared.
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
    """People with images in the wrong places: tested ones without any, and unlisted ones with some."""
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
                continue  # copies of test images lie here as well
            if named[0] in trained:
                yield f"{path} is in no list"
            else:
                unlisted[named[0]] += 1
        for person, count in unlisted.items():
            yield f"person {person} has {count} images in {TRAINING_FOLDERS[modality]} and is in no list"
