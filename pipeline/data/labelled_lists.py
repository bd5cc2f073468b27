"""Lists of images with a label a line, as RegDB and LLCM come with."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.modality import Modality
from pipeline.errors import DataError

_RESTORE = "restore the list from the data set: a line is the path of an image below the data root, a blank, a number"


@dataclass(frozen=True, slots=True)
class LabelledPath:
    """A line of a list; `where` is the list and the number of the line, as an editor understands it."""

    path: PurePosixPath
    label: int
    where: str


def read_labelled_list(path: Path) -> tuple[LabelledPath, ...]:
    r"""The images that a list names, in its order; empty lines are passed over.

    A line is split at its last blank, since paths may hold blanks, and backslashes separate like slashes. The label is
    a number that whoever made the list gave to a person: it means nothing outside the list, and people are known by the
    folder or the file's name instead.

    Args:
        path: A text file.

    Returns:
        One entry a line, with repetitions.

    Raises:
        DataError: A line is something else, or its path leaves the data root.
    """
    entries: list[LabelledPath] = []
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            entries.append(_entry(line.strip(), f"{path}:{number}"))
    return tuple(entries)


def label_contradictions(pairs: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Where labels and people do not correspond one to one.

    Args:
        pairs: Label and person of each image of one list.

    Yields:
        A sentence for each label of several people, then for each person with several labels.

    >>> list(label_contradictions([(0, 193), (1, 17), (0, 17)]))
    ['label 0 stands for people 17, 193', 'person 17 has labels 0, 1']
    """
    people_of: defaultdict[int, set[int]] = defaultdict(set)
    labels_of: defaultdict[int, set[int]] = defaultdict(set)
    for label, person in pairs:
        people_of[label].add(person)
        labels_of[person].add(label)
    for label, people in sorted(people_of.items()):
        if len(people) > 1:
            yield f"label {label} stands for people {_enumerate(people)}"
    for person, labels in sorted(labels_of.items()):
        if len(labels) > 1:
            yield f"person {person} has labels {_enumerate(labels)}"


def repetitions(paths: Iterable[str]) -> Iterator[str]:
    """What a list names again, once for every repetition.

    >>> list(repetitions(["a", "b", "a", "a"]))
    ['a', 'a']
    """
    for path, times in Counter(paths).items():
        yield from (path for _ in range(times - 1))


def name_missing_images(
    missing: Mapping[str, int], people_present: Collection[int], modality: Modality
) -> Iterator[str]:
    """Say which listed images are gone; a person of whom nothing is left is one sentence, not one an image.

    Args:
        missing: Person by path, in the order in which to name them.
        people_present: Everybody who has images of this modality.
        modality: Whose images they are.

    >>> list(name_missing_images({"3/a.bmp": 3, "7/a.bmp": 7, "7/b.bmp": 7}, {3}, Modality.VISIBLE))
    ['3/a.bmp is missing', 'person 7 has no visible images: 2 are missing, first 7/a.bmp']
    """
    num_missing = Counter(missing.values())
    named: set[int] = set()
    for path, person in missing.items():
        if person in people_present:
            yield f"{path} is missing"
        elif person not in named:
            named.add(person)
            yield f"person {person} has no {modality} images: {num_missing[person]} are missing, first {path}"


def _entry(line: str, where: str) -> LabelledPath:
    match = re.fullmatch(r"(.*\S)\s+([0-9]+)", line)
    if match is None:
        raise DataError(f"{where}: {line[:80]!r} is not a path and a label", hint=_RESTORE)
    path = PurePosixPath(match[1].replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)):
        raise DataError(f"{where}: {match[1]!r} leaves the data root", hint=_RESTORE)
    return LabelledPath(path=path, label=int(match[2]), where=where)


def _enumerate(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
