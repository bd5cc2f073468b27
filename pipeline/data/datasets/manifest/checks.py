"""Checks over all rows of a manifest: repeated images, people in training and test, queries without a match."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.modality import Modality, PerModality
from pipeline.data.datasets.manifest.rows import ManifestRow, Mistake
from pipeline.errors import DataError
from pipeline.runtime.names import FileNames, plain, spelling_notes

ROLES: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train"}),
    "val": frozenset({"val"}),
    "query": frozenset({"query"}),
    "gallery": frozenset({"gallery"}),
    "test": frozenset({"query", "gallery"}),
}
"""What an image of each split is used as."""

FEW_PEOPLE = 20


@dataclass(frozen=True, slots=True)
class Retrieval:
    """One direction: number of queries, of queries with a match that is not excluded, and of people in the gallery."""

    query: Modality
    queries: int
    valid: int
    people: int


def find_mistakes(rows: Sequence[ManifestRow], allow_overlap: bool) -> list[Mistake]:
    """All mistakes between rows; `allow_overlap` permits people and images in both training and test."""
    return [
        *_repetitions(rows),
        *mixed_names(rows),
        *([] if allow_overlap else overlaps(rows)),
        *_repeated_validation(rows),
    ]


def overlaps(rows: Sequence[ManifestRow]) -> list[Mistake]:
    """All people, and all images of unknown people, in both training and test."""
    trained_people = {row.person for row in rows if row.split == "train" and row.person}
    trained_paths = {row.path for row in rows if row.split == "train"}
    found: dict[str, Mistake] = {}
    for row in rows:
        if row.split == "train":
            continue
        split = "query and gallery" if row.split == "test" else row.split
        advice = "(--allow-overlap, or data.allow_overlap=true, permits it)"
        if row.person in trained_people:
            what = f"person {row.person}"
        elif row.path in trained_paths:
            what = row.path
        else:
            continue
        found.setdefault(what, Mistake(row.line, f"{what} is in train and in {split} {advice}", "overlap"))
    return list(found.values())


def retrievals(rows: Sequence[ManifestRow]) -> tuple[Retrieval, ...]:
    """The possible searches among test rows, under the usual exclusion: see `pipeline.evaluation.searches`."""
    queries = [row for row in rows if "query" in ROLES[row.split]]
    gallery = [row for row in rows if "gallery" in ROLES[row.split]]
    hides_own_camera = bool(_cameras_of_both([*queries, *gallery]))
    directions = []
    for query in (Modality.INFRARED, Modality.VISIBLE):
        seen: defaultdict[str, set[str]] = defaultdict(set)
        for row in gallery:
            if row.modality is query.other:
                seen[row.person].add(row.camera)
        own = [row for row in queries if row.modality is query]
        if own and seen:
            excluded = ({row.camera} if hides_own_camera else set() for row in own)
            valid = sum(bool(seen.get(row.person, set()) - out) for row, out in zip(own, excluded, strict=True))
            directions.append(Retrieval(query, len(own), valid, len(seen)))
    return tuple(directions)


def _cameras_of_both(rows: Sequence[ManifestRow]) -> set[str]:
    """The cameras that the usual exclusion reads: those with both modalities, if there are several cameras."""
    visible, infrared = PerModality.build(lambda modality: {row.camera for row in rows if row.modality is modality})
    return visible & infrared if len(visible | infrared) > 1 else set()


def numbers_of(names: Iterable[str]) -> dict[str, int]:
    """A number for each name: whole numbers keep their value, texts are counted from 1 in sorted order."""
    distinct = sorted({name for name in names if name})
    if all(name.isdecimal() for name in distinct):
        return {name: int(name) for name in distinct}
    return {name: number for number, name in enumerate(distinct, start=1)}


def folder_of_paths(manifest: Path, rows: Sequence[ManifestRow], given: Path | None) -> Path:
    """The folder that paths start from: the given one, that of column `images_root`, or the manifest's own.

    Raises:
        DataError: The column names several folders.
    """
    if given is not None:
        return given
    named = sorted({row.images_root for row in rows})
    if len(named) > 1:
        raise DataError(
            f"{manifest.name}: column images_root names {len(named)} folders, first {named[0]!r} and {named[1]!r}",
            hint="write one folder into all rows, or name it with --root, or data.images_root",
        )
    return manifest.parent / os.path.expanduser("".join(named))  # noqa: PTH111 - `./~` is no home folder


def find_files(rows: Sequence[ManifestRow], root: Path) -> tuple[list[ManifestRow], list[Mistake], list[str]]:
    """The rows with paths as they are on disk, the mistakes of rows without a file, and notes; no image is opened."""
    names = FileNames(root)
    found: list[ManifestRow] = []
    renamed: list[tuple[str, str]] = []
    mistakes: list[Mistake] = []
    for row in rows:
        path, problem = _file(row.path, root, names)
        if problem is not None:
            mistakes.append(Mistake(row.line, *problem))
        if path != row.path:
            renamed.append((row.path, path))
        found.append(row if path == row.path else replace(row, path=path))
    return found, mistakes, list(spelling_notes(renamed, "paths"))


def _file(path: str, root: Path, names: FileNames) -> tuple[str, tuple[str, str] | None]:
    """The path on disk, and what is wrong with its file: description and kind."""
    try:
        status = (root / path).stat()
    except (FileNotFoundError, NotADirectoryError):
        alike = names.find(path)
        if alike is not None and alike != path:
            return alike, _file(alike, root, names)[1]
        several = ", ".join(map(ascii, names.alike(path)))
        reason = f"; several names look like it: {several}" if several else ""
        return path, (f"image not found: {path} (relative to {root}{reason})", "file missing")
    except OSError as error:
        return path, (f"image not found: {path} (relative to {root}; {error.strerror})", "file unreadable")
    if stat.S_ISDIR(status.st_mode):
        return path, (f"{path} is a folder, not an image", "file folder")
    return path, None


def _repetitions(rows: Sequence[ManifestRow]) -> Iterator[Mistake]:
    first_line: dict[tuple[str, str], int] = {}
    known: dict[tuple[str, str], ManifestRow] = {}
    for row in rows:
        uses = [(row.path, use) for use in sorted(ROLES[row.split])]
        repeated = [first_line[use] for use in uses if use in first_line]
        for column in ("modality", "camera", "person"):
            # Who is shown may be left open in one row and said in another.
            first = known.setdefault((row.path, column), row) if getattr(row, column) else row
            if getattr(first, column) != getattr(row, column):
                again = f"{row.path} appears again (first at line {first.line}) with another {column}"
                yield Mistake(row.line, again, "contradiction")
                break
        else:
            if repeated:
                yield Mistake(row.line, f"{row.path} appears again (first at line {min(repeated)})", "repetition")
        for use in uses:
            first_line.setdefault(use, row.line)


def mixed_names(rows: Sequence[ManifestRow]) -> Iterator[Mistake]:
    """`0012` and `12` are one number and two texts: a column is all of one kind."""
    for column in ("person", "camera"):
        names = {getattr(row, column): row.line for row in reversed(rows) if getattr(row, column)}
        texts = sorted((line, name) for name, line in names.items() if not name.isdecimal())
        if texts and len(texts) < len(names):
            line, name = texts[0]
            yield Mistake(line, f"{column} must be all integers or all text; {name!r} is text, others are integers")


def alike_names(rows: Sequence[ManifestRow]) -> Iterator[str]:
    """People and cameras whose names differ in upper and lower case only: they count as two."""
    for column in ("person", "camera"):
        spellings: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            spellings[plain(getattr(row, column)).casefold()].add(getattr(row, column))
        several = [sorted(names) for names in spellings.values() if len(names) > 1]
        if several:
            first = ", ".join(map(repr, several[0]))
            yield f"{column} names that differ in upper and lower case only are different {column}s: {first}"


def _repeated_validation(rows: Sequence[ManifestRow]) -> Iterator[Mistake]:
    """An image that selects a round must not be in the test of that round."""
    tested = {row.path: row.line for row in rows if ROLES[row.split] & {"query", "gallery"}}
    for row in rows:
        if row.split == "val" and row.path in tested:
            yield Mistake(row.line, f"{row.path} is in val and, at line {tested[row.path]}, in the test", "validation")


def useless_splits(rows: Sequence[ManifestRow]) -> Iterator[Mistake]:
    """Splits that cannot be trained or measured on."""
    for split, purpose in (("train", "training"), ("val", "validation")):
        counts = Counter(row.modality for row in rows if row.split == split)
        if counts:
            for modality in Modality:
                if counts[modality] == 0:
                    yield Mistake(0, f"{purpose} needs visible and infrared images; {modality}: 0")
    tested = [row for row in rows if ROLES[row.split] & {"query", "gallery"}]
    if tested:
        queries = sum("query" in ROLES[row.split] for row in tested)
        if not queries:
            yield Mistake(0, f"{len(tested):,} gallery rows, but no row to look for: no query, no test")
        elif not any(direction.valid for direction in retrievals(tested)):
            message = f"none of {queries:,} queries has a match in the gallery"
            if shared := sorted(_cameras_of_both(tested)):
                message += (
                    f" (camera {shared[0]} has both modalities, so that a query's own camera is excluded from it)"
                )
            yield Mistake(0, message)
