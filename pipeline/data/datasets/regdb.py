"""RegDB: 412 people under one camera of visible light and infrared, ten images of each person and modality.

Layout:

RegDB/Visible/{person}/female_back_v_02396_193.bmp     RegDB/Thermal/{person}/female_back_t_02405_193.bmp
RegDB/idx/{train,test}_{visible,thermal}_{1..10}.txt   a line: "Visible/193/female_back_v_02396_193.bmp 17"
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from models.modality import Modality, PerModality
from pipeline.config import datasets
from pipeline.data.check import MAKE_AGAIN, CheckRow, DatasetCheck, SplitCounts, accept, drawn_split_counts
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.listing import (
    images_by_person,
    label_contradictions,
    name_missing_images,
    read_labelled_list,
    repetitions,
    report_unexpected,
)
from pipeline.data.roots import require_layout
from pipeline.data.synthetic.record import read_drawn
from pipeline.data.truth import Dataset, ImageRow, SplitTables, build_tables
from pipeline.errors import ConfigError, DataError
from pipeline.runtime.names import Names

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
    """List the images and read the existing lists of all ten splits."""
    require_layout(root, "RegDB", (*IMAGE_FOLDERS, LIST_FOLDER), (), OBTAIN)
    unexpected: list[str] = []
    images = IMAGE_FOLDERS.map(lambda folder: _list_images(root, folder, unexpected))
    report_unexpected(root, unexpected)
    names = images.map(Names)
    splits = tuple(SplitLists(split, dict(_read_lists(root, split, names))) for split in SPLITS)
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


def _read_lists(
    root: Path, split: int, names: PerModality[Names]
) -> Iterator[tuple[tuple[str, Modality], tuple[ListedImage, ...]]]:
    for part in PARTS:
        for modality in Modality:
            path = root / list_name(split, part, modality)
            if path.is_file():
                yield (part, modality), tuple(_read_list(path, IMAGE_FOLDERS[modality], names[modality]))


def _read_list(path: Path, folder: str, names: Names) -> Iterator[ListedImage]:
    """The person of a line is the folder above the image; labels number people differently in each list."""
    for entry in read_labelled_list(path, names):
        parts = entry.path.parts
        if len(parts) != 3 or parts[0] != folder or not _PERSON.fullmatch(parts[1]):
            raise DataError(
                f"{entry.where}: {str(entry.path)!r} is not {folder}/PERSON/IMAGE",
                hint="restore the list from the data set: each names the images of one modality",
            )
        yield ListedImage(path=str(entry.path), person=int(parts[1]), label=entry.label)


NAME = "regdb"
CAMERAS = PerModality(1, 2)
"""Two sensors in one housing; the protocol excludes no pair of images."""

# Every split divides the 412 people at random into two halves; each has ten images of either modality.
PUBLISHED_COUNTS: Mapping[str, SplitCounts] = {
    "train": SplitCounts(people=206, images=PerModality(2060, 2060)),
    "test": SplitCounts(people=206, images=PerModality(2060, 2060)),
}
IMAGES_A_PERSON = 10

_FILES = "unpack Visible and Thermal again: each holds 412 folders of 10 images"
_LISTS = f"copy {LIST_FOLDER}/ again: 40 lists, train and test of both modalities for each of ten splits"
_UNPACK = "unpack the data set again: Visible and Thermal hold ten images of each of 412 people"


def read_regdb(root: Path, *, split: int | None, allow_partial: bool = False) -> Dataset:
    """List the images of RegDB in one of its ten random splits, or of a synthetic data set of the same layout.

    A model belongs to a split: one that was trained on split 1 has seen half of the test people of split 2. The person
    is the folder; labels number people differently in each list and are only compared with it. All ten splits are
    checked. `allow_partial` does not accept a split that lacks a list or whose lists contradict each other.

    Raises:
        ConfigError: No split is given, or one that does not exist.
        DataError: The folder is something else, the split's lists contradict each other or the folders, counts differ,
            or a modality is empty.

    Cost: 1.5 s for 8,240 images and 40 lists (measured) once the folder listings are in memory.
    """
    if split is None or split not in SPLITS:
        unset = "RegDB has ten splits, and data.split does not name one"
        raise ConfigError(
            unset if split is None else f"RegDB has no split {split}: they are numbered 1 to 10",
            hint="one model a split: `vireid train cclnet-regdb --splits 1-10` trains ten, `--set data.split=1` one",
        )
    archive = open_archive(root)
    lists = archive.splits[SPLITS.index(split)]
    _require_usable(root, lists)
    partial = accept(root, check_archive(archive), allow_partial)
    training, test = (_tables(archive, lists, part) for part in PARTS)
    return Dataset(
        name=NAME,
        kind="licensed" if archive.drawn is None else "drawn",
        root=root,
        images=_tables_of(archive, archive.images.map(frozenset), "the data set").images,
        training=training,
        test=test,
        partial=partial,
        split=split,
    )


def check_regdb(root: Path) -> DatasetCheck:
    """Compare RegDB with its published counts in all ten splits, or a synthetic one with its own."""
    return check_archive(open_archive(root))


def _require_usable(root: Path, lists: SplitLists) -> None:
    """Refuse a split without all its lists, or with contradictions that would make every result wrong."""
    if lists.missing:
        raise DataError(
            f"{root}: split {lists.split} lacks {', '.join(lists.missing)}",
            hint=f"copy {LIST_FOLDER}/ again: a split is four lists, train and test of both modalities",
        )
    problems = list(islice(chain(people_trained_and_tested(lists), label_mismatches(lists)), 5))
    if problems:
        raise DataError(
            f"{root / LIST_FOLDER} contradicts itself: {'; '.join(problems)}",
            hint="restore the lists from the data set: a model must not be tested on people it was trained on, and a "
            "label stands for one folder",
        )


def _tables(archive: RegdbArchive, lists: SplitLists, part: str) -> SplitTables:
    listed = PerModality.build(lambda modality: frozenset(image.path for image in lists.listed(part, modality)))
    return _tables_of(archive, listed, {"train": "training", "test": "test"}[part])


def _tables_of(archive: RegdbArchive, wanted: PerModality[frozenset[str]], purpose: str) -> SplitTables:
    rows = archive.images.map_with(
        lambda people, paths, camera: tuple(
            ImageRow(person, camera, path) for path, person in people.items() if path in paths
        ),
        wanted,
        CAMERAS,
    )
    return build_tables(archive.root, rows, purpose=purpose, advice=_UNPACK)


def check_archive(archive: RegdbArchive) -> DatasetCheck:
    """Compare an archive with the published counts, or a synthetic one with its own; contradictions are rows too."""
    expected = PUBLISHED_COUNTS if archive.drawn is None else drawn_split_counts(archive.drawn, PARTS)
    rows = (*_rows_of_images(archive, expected), *_rows_of_splits(archive, expected))
    return DatasetCheck.explained(rows, _offenders(archive))


def label_mismatches(lists: SplitLists) -> Iterator[str]:
    """Labels and folders that do not correspond one to one inside a list of a split."""
    for (part, modality), listed in lists.lists.items():
        for contradiction in label_contradictions((image.label, image.person) for image in listed):
            yield f"{list_name(lists.split, part, modality)}: {contradiction}"


def people_trained_and_tested(lists: SplitLists) -> Iterator[str]:
    """People in both the training and the test lists of a split."""
    for person in sorted(lists.all_people("train") & lists.all_people("test")):
        yield f"split {lists.split}: person {person} is in train and in test"


def _rows_of_images(archive: RegdbArchive, expected: Mapping[str, SplitCounts]) -> Iterator[CheckRow]:
    advice = _FILES if archive.drawn is None else MAKE_AGAIN
    people = archive.images.map(lambda images: set(images.values()))
    num_people = sum(counts.people for counts in expected.values())
    yield CheckRow("people with images of both modalities", num_people, len(people.visible & people.infrared), advice)
    for modality, images in archive.images.items():
        num_images = sum(counts.images[modality] for counts in expected.values())
        yield CheckRow(f"{modality} images", num_images, len(images), advice)
    if archive.drawn is None:
        differing = len(list(_people_with_other_numbers(archive)))
        yield CheckRow(f"people and modalities without {IMAGES_A_PERSON} images", 0, differing, advice)


def _rows_of_splits(archive: RegdbArchive, expected: Mapping[str, SplitCounts]) -> Iterator[CheckRow]:
    lists_advice, files_advice = (_LISTS, _FILES) if archive.drawn is None else 2 * (MAKE_AGAIN,)
    for lists in archive.splits:
        for part, counts in expected.items():
            name = f"split {lists.split}, {part}"
            yield CheckRow(f"{name}, people", counts.people, len(lists.all_people(part)), lists_advice)
            for modality in Modality:
                found = len(lists.listed(part, modality))
                yield CheckRow(f"{name}, {modality} lines", counts.images[modality], found, lists_advice)
    yield CheckRow("listed images that do not exist", 0, sum(_missing_images(archive).map(len)), files_advice)
    for name, contradictions in _CONTRADICTIONS.items():
        yield CheckRow(name, 0, sum(len(list(contradictions(lists))) for lists in archive.splits), lists_advice)


def _offenders(archive: RegdbArchive) -> Iterator[str]:
    yield from (f"{name} is missing" for lists in archive.splits for name in lists.missing)
    for modality, missing in _missing_images(archive).items():
        yield from name_missing_images(missing, set(archive.images[modality].values()), modality)
    for contradictions in _CONTRADICTIONS.values():
        yield from chain.from_iterable(contradictions(lists) for lists in archive.splits)
    yield from chain.from_iterable(_unlisted(archive, lists) for lists in archive.splits)
    if archive.drawn is None:
        yield from _people_with_other_numbers(archive)


def _missing_images(archive: RegdbArchive) -> PerModality[dict[str, int]]:
    """The person of every listed path without a file, by person and path."""

    def missing(modality: Modality) -> dict[str, int]:
        listed = chain.from_iterable(lists.listed(part, modality) for lists in archive.splits for part in PARTS)
        gone = {(image.person, image.path) for image in listed if image.path not in archive.images[modality]}
        return {path: person for person, path in sorted(gone)}

    return PerModality.build(missing)


def _people_of_one_modality(lists: SplitLists) -> Iterator[str]:
    for part in PARTS:
        if any((part, modality) not in lists.lists for modality in Modality):
            continue  # the missing list is named already
        visible, infrared = (lists.people(part, modality) for modality in Modality)
        for person in sorted(visible ^ infrared):
            only = Modality.VISIBLE if person in visible else Modality.INFRARED
            yield f"split {lists.split}, {part}: person {person} is in the {only} list only"


def _repeated_images(lists: SplitLists) -> Iterator[str]:
    for (part, modality), images in lists.lists.items():
        for path in repetitions(image.path for image in images):
            yield f"{list_name(lists.split, part, modality)} names {path} again"


def _unlisted(archive: RegdbArchive, lists: SplitLists) -> Iterator[str]:
    """Images of a split that neither list names; a person without any listed image is one offender."""
    for modality, images in archive.images.items():
        if any((part, modality) not in lists.lists for part in PARTS):
            continue  # the missing list is named already
        listed = {image.path for part in PARTS for image in lists.listed(part, modality)}
        people = {person for part in PARTS for person in lists.people(part, modality)}
        for person in sorted(set(images.values()) - people):
            yield f"person {person} is in no {modality} list of split {lists.split}"
        for path, person in images.items():
            if person in people and path not in listed:
                yield f"{path} is in no list of split {lists.split}"


def _people_with_other_numbers(archive: RegdbArchive) -> Iterator[str]:
    for modality, images in archive.images.items():
        for person, count in Counter(images.values()).items():
            if count != IMAGES_A_PERSON:
                folder = f"{IMAGE_FOLDERS[modality]}/{person}"
                yield f"{folder} holds {count} images, every person has {IMAGES_A_PERSON} of each modality"


_CONTRADICTIONS: Mapping[str, Callable[[SplitLists], Iterator[str]]] = {
    "people in train and in test of a split": people_trained_and_tested,
    "labels and folders that do not match": label_mismatches,
    "people in the list of one modality only": _people_of_one_modality,
    "images that a list names again": _repeated_images,
}

SPEC = DatasetSpec(datasets.REGDB, read_regdb, check_regdb, OBTAIN, PUBLISHED_COUNTS, (*IMAGE_FOLDERS, LIST_FOLDER))
