"""LLCM on disk: the images of the training lists, and those in the test folders."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from models.modality import Modality, PerModality
from pipeline.data.list_files import LabelledPath, read_labelled_list, read_person_list
from pipeline.data.listing import images_by_person, report_unexpected, require_layout, sorted_names, walk_images
from pipeline.data.synthetic.record import read_drawn
from pipeline.data.truth import ImageRow
from pipeline.errors import DataError

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
    """Read the lists and list the images.

    Raises:
        DataError: The folder is not laid out like LLCM, a name contains no person, name and folder disagree, or a
            person is in training and in test.
    """
    lists = (f"{LIST_FOLDER}/{name}" for name in (*TRAINING_LISTS, TEST_PEOPLE))
    missing = [name for name in lists if not (root / name).is_file()]
    require_layout(root, "LLCM", (*TRAINING_FOLDERS, *TEST_FOLDERS), missing, OBTAIN)
    lines = PerModality.build(lambda modality: tuple(_read_training_list(root, modality)))
    test_people = read_person_list(root / LIST_FOLDER, "test")
    assert test_people is not None, "the layout was checked"
    _check_disjoint(root, lines, test_people)
    unexpected: list[str] = []
    test = TEST_FOLDERS.map(lambda folder: tuple(_list_test_images(root, folder, unexpected)))
    report_unexpected(root, unexpected)
    return LlcmArchive(
        root=root,
        lines=lines,
        found=TRAINING_FOLDERS.map(lambda folder: frozenset(map(str, walk_images(root, PurePosixPath(folder))))),
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


def _read_training_list(root: Path, modality: Modality) -> Iterator[TrainingLine]:
    folder = TRAINING_FOLDERS[modality]
    for entry in read_labelled_list(root / LIST_FOLDER / TRAINING_LISTS[modality]):
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
