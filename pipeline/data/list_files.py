"""List files of data sets: images with a label a line, person numbers, MATLAB variables."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io
from jaxtyping import Shaped
from scipy.io.matlab import MatReadError

from models.modality import Modality
from pipeline.errors import DataError

_RESTORE = "restore the list from the data set: a line is the path of an image below the data root, a blank, a number"


@dataclass(frozen=True, slots=True)
class LabelledPath:
    """A line of a list; `where` is `FILE:LINE`."""

    path: PurePosixPath
    label: int
    where: str


def read_labelled_list(path: Path) -> tuple[LabelledPath, ...]:
    """The images that a list names, in its order, with repetitions; empty lines are skipped.

    A line is split at its last blank, since paths may contain blanks; backslashes separate like slashes. The label
    numbers a person inside this list only: people are identified by folder or file name.

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
    """Labels and people, given as pairs, that do not correspond one to one: labels of several people first.

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
    """Each repetition of a path in a list.

    >>> list(repetitions(["a", "b", "a", "a"]))
    ['a', 'a']
    """
    for path, times in Counter(paths).items():
        yield from (path for _ in range(times - 1))


def name_missing_images(
    missing: Mapping[str, int], people_present: Collection[int], modality: Modality
) -> Iterator[str]:
    """Name missing images (person by path); a person not among `people_present` is one sentence.

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


def read_person_list(folder: Path, split: str) -> tuple[int, ...] | None:
    """The person numbers of a split, ascending, from `{split}_id.txt`, `{split}_id.mat`, or both; None without a file.

    Raises:
        DataError: A file is not such a list, or the two contradict each other.
    """
    text_path, mat_path = folder / f"{split}_id.txt", folder / f"{split}_id.mat"
    text = _read_text_list(text_path) if text_path.is_file() else None
    mat = _read_mat_list(mat_path) if mat_path.is_file() else None
    if text is not None and mat is not None and text != mat:
        differing = ", ".join(str(person) for person in sorted(set(text) ^ set(mat))[:5])
        raise DataError(
            f"{text_path} names {len(text)} people and {mat_path.name} {len(mat)}; first in one alone: {differing}",
            hint="both come with the data set and are equal there: restore them, or remove the one you changed",
        )
    return mat if text is None else text


def read_mat(path: Path, variable: str) -> Shaped[np.ndarray, "..."]:
    """A variable of a MATLAB 5 file.

    Raises:
        DataError: The file cannot be read, or holds no such variable.
    """
    try:
        variables = scipy.io.loadmat(path, variable_names=[variable])
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise DataError(
            f"{path} is not a readable MATLAB 5 file: {error}", hint="restore the file from its source"
        ) from error
    if variable not in variables:
        raise DataError(f"{path} holds no variable `{variable}`", hint="restore the file from its source")
    return np.asarray(variables[variable])


def _read_text_list(path: Path) -> tuple[int, ...]:
    tokens = [token for token in re.split(r"[,\s]+", path.read_text(encoding="utf-8", errors="replace")) if token]
    for token in tokens:
        if not re.fullmatch(r"[0-9]+", token):
            raise DataError(
                f"{path}: {token[:20]!r} is not a person number",
                hint="the file is one line of numbers, separated by commas",
            )
    return _distinct(path, [int(token) for token in tokens])


def _read_mat_list(path: Path) -> tuple[int, ...]:
    ids = read_mat(path, "id")
    if not np.issubdtype(ids.dtype, np.number):
        raise DataError(f"{path}: `id` holds no numbers", hint="restore the file from the data set")
    return _distinct(path, [int(person) for person in ids.ravel()])


def _distinct(path: Path, people: list[int]) -> tuple[int, ...]:
    if not people:
        raise DataError(f"{path} names no person", hint="restore the file from the data set")
    return tuple(sorted(set(people)))


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
