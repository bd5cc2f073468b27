"""Names in the folders of a data set, in a fixed order; text files of users; list files of data sets."""

import json
import logging
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Shaped

from models.file_kinds import MATLAB, what_is
from models.modality import Modality
from pipeline.errors import DataError
from pipeline.runtime.names import Names, plain, spelling_notes
from pipeline.runtime.text_files import read_text

logger = logging.getLogger(__name__)

_IMAGE = re.compile(r".+\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE | re.DOTALL)


def is_image_name(name: str) -> bool:
    """Whether the extension is that of an image.

    >>> is_image_name("female_back_v_02396_193.BMP"), is_image_name("notes.txt"), is_image_name(".jpg")
    (True, False, False)
    """
    return _IMAGE.fullmatch(name) is not None


def sorted_names(folder: Path) -> list[str]:
    """The names in a folder by code point, without dot files and `Thumbs.db`; empty without a folder."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir())
    return sorted(name for name in names if not name.startswith(".") and name.lower() != "thumbs.db")


def walk_images(
    root: Path,
    folder: PurePosixPath,
    above: frozenset[Path] = frozenset(),
    *,
    is_image: Callable[[str], bool] = is_image_name,
    others: list[str] | None = None,
) -> Iterator[PurePosixPath]:
    """The images below `root / folder` at any depth, relative to `root`, a folder's names by code point.

    `is_image` decides by the name, by default as for published data sets; `others` receives all other files. Links are
    followed, except to a folder that is being walked (`above`, for the recursion).

    Cost: One listing a folder, and a file status only for names that are not image names.
    """
    here = (root / folder).resolve()
    if here in above:
        return
    for name in sorted_names(root / folder):
        if is_image(name):
            yield folder / name
        elif (root / folder / name).is_dir():
            yield from walk_images(root, folder / name, above | {here}, is_image=is_image, others=others)
        elif others is not None:
            others.append(str(folder / name))


def images_by_person(
    root: Path, folder: str, pattern: re.Pattern[str], unexpected: list[str], image: re.Pattern[str] = _IMAGE
) -> Iterator[tuple[int, PurePosixPath]]:
    """Person and path of each image in `folder/PERSON/`, names by code point; other entries go to `unexpected`."""
    for person in sorted_names(root / folder):
        place = PurePosixPath(folder, person)
        if not (pattern.fullmatch(person) and (root / place).is_dir()):
            unexpected.append(str(place))
            continue
        for name in sorted_names(root / place):
            if image.fullmatch(name):
                yield int(person), place / name
            else:
                unexpected.append(str(place / name))


def report_unexpected(root: Path, unexpected: Sequence[str]) -> None:
    """Log once how many entries were skipped because they are no images of the layout."""
    if unexpected:
        logger.info("%s: skipped %d entries that are no images, first: %s", root, len(unexpected), unexpected[0])


def json_lines(lines: Iterable[str], hook: Callable[[list[tuple[str, Any]]], Any]) -> Iterator[tuple[int, Any]]:
    """Line number of each line that is not blank, with its JSON object, or a text that states why it is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line.rstrip("\n").lstrip("\ufeff"), object_pairs_hook=hook)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON: {json_problem(error)}"
        else:
            yield number, values if isinstance(values, dict) else "not a JSON object"


def json_problem(error: ValueError | RecursionError) -> str:
    """The reason of an error of `json.loads`, with its column."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "a number of more than 4,300 digits" if "int_max_str_digits" in str(error) else str(error)


_MAX_DIGITS = 9
_NUMBER = re.compile(rf"[0-9]{{1,{_MAX_DIGITS}}}")
_ENTRY = re.compile(rf"(.*[^\s,;])(?:\s+|\s*[,;]\s*)({_NUMBER.pattern})", re.DOTALL)
_RESTORE_LIST = "restore the list from the data set"
_RESTORE = "restore the list from the data set: a line is the path of an image below the data root, a blank, a number"


@dataclass(frozen=True, slots=True)
class LabelledPath:
    """A line of a list; `where` is `FILE:LINE`."""

    path: PurePosixPath
    label: int
    where: str


def read_labelled_list(path: Path, names: Names | None = None) -> tuple[LabelledPath, ...]:
    """The images that a list names, in its order, with repetitions; empty lines are skipped.

    A line is split at its last blank, comma or semicolon, since paths may contain blanks; backslashes separate like
    slashes. A path is spelled as in `names`, the existing images. The label numbers a person inside this list only:
    people are identified by folder or file name.

    Raises:
        DataError: A line is something else, or its path leaves the data root.
    """
    text = read_text(path, kind="list", origin=_RESTORE)
    lines = ((number, line.strip("\ufeff \t\r")) for number, line in enumerate(text.split("\n"), start=1))
    entries = [_entry(line, f"{path}:{number}") for number, line in lines if plain(line)]
    if names is None:
        return tuple(entries)
    spelled = [replace(one, path=PurePosixPath(names.find(str(one.path)) or one.path)) for one in entries]
    renamed = [(str(one.path), str(two.path)) for one, two in zip(entries, spelled, strict=True) if one != two]
    for note in spelling_notes(renamed, "paths"):
        logger.info("%s: %s", path.name, note)
    return tuple(spelled)


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


# What scipy's reader was seen to raise for damaged bytes.
_DAMAGE = (
    OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, NameError, AttributeError, MemoryError,
    zlib.error,
)  # fmt: skip


def read_mat(path: Path, variable: str) -> Shaped[np.ndarray, "..."]:
    """A variable of a MATLAB 5 file."""
    import scipy.io  # here, because few data sets need it
    from scipy.io.matlab import MatReadError

    damage = (*_DAMAGE, MatReadError)
    try:
        variables = scipy.io.loadmat(path, variable_names=[variable])
    except damage as error:
        kind = what_is(path)
        reason = error if kind.name == MATLAB else f"it is {kind}"
        raise DataError(
            f"{path} is not a readable MATLAB 5 file: {reason}", hint="restore the file from its source"
        ) from error
    if variable not in variables:
        raise DataError(f"{path} holds no variable `{variable}`", hint="restore the file from its source")
    return np.asarray(variables[variable])


def _read_text_list(path: Path) -> tuple[int, ...]:
    text = read_text(path, kind="list", origin=_RESTORE_LIST)
    people: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        for token in filter(None, re.split(r"[,;\s]+", plain(line))):
            if not _NUMBER.fullmatch(token):
                raise DataError(
                    f"{path}:{number}: {token[:20]!r} is not a person number",
                    hint="the file is one line of numbers, separated by commas",
                )
            people.append(int(token))
    return _distinct(path, people)


def _read_mat_list(path: Path) -> tuple[int, ...]:
    ids = read_mat(path, "id")
    if ids.dtype.kind not in "iuf" or not np.all((ids >= 0) & (ids < 10**_MAX_DIGITS) & (ids == np.floor(ids))):
        raise DataError(f"{path}: `id` holds other values than person numbers", hint=_RESTORE_LIST)
    return _distinct(path, [int(person) for person in ids.ravel()])


def _distinct(path: Path, people: list[int]) -> tuple[int, ...]:
    if not people:
        raise DataError(f"{path} names no person", hint=_RESTORE_LIST)
    return tuple(sorted(set(people)))


def _entry(line: str, where: str) -> LabelledPath:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise DataError(f"{where}: {line[:80]!r} is not a path and a label", hint=_RESTORE)
    path = PurePosixPath(match[1].strip("\"'").replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)):
        raise DataError(f"{where}: {match[1]!r} leaves the data root", hint=_RESTORE)
    return LabelledPath(path=path, label=int(match[2]), where=where)


def _enumerate(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
