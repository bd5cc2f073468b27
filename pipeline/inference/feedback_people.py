"""The people of images from marks: what a user marked as right for one query shows one person."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path, PurePath

from pipeline.errors import DataError
from pipeline.inference.feedback import RIGHT, Mark, query_files, standing
from pipeline.inference.index import read_record


def marked_people(marks: Sequence[Mark], folder: Path, images: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """A number for the person of each image of a folder (paths relative to it) that marks identify, and notes.

    Hits that are marked right for one query, and the images of the query, show one person; two queries with a right hit
    in common show the same one. Groups with an image that is also marked wrong for one of their queries contradict
    themselves and are excluded. Hits are found by the index that the mark names; images of queries by name and SHA-256.

    Raises:
        DataError: The index of a right mark does not exist any more, or an image cannot be read.

    Cost: reads the images whose name is that of a query's image.
    """
    roots = {index: _root(index) for index in {mark.index for mark in marks}}
    groups = _Groups()
    stand = standing(marks)
    for mark in stand:
        if mark.mark == RIGHT:
            groups.join([*mark.digests, roots[mark.index] / mark.hit])
    contradicted = set[int]()
    for mark in stand:
        group = groups.of(mark.digests[0])
        if mark.mark != RIGHT and group is not None and group == groups.of(roots[mark.index] / mark.hit):
            contradicted.add(group)
    start = folder.resolve()
    found: defaultdict[int, list[str]] = defaultdict(list)
    names = {name for mark in stand if mark.mark == RIGHT for name, _ in query_files(mark.query)}
    for path in images:
        group = groups.of(start / path)
        if group is None and PurePath(path).name in names:
            group = groups.of(hashlib.sha256((start / path).read_bytes()).hexdigest())
        if group is not None and group not in contradicted:
            found[group].append(path)
    people = {path: str(number) for number, paths in enumerate(found.values(), start=1) for path in paths}
    notes = [f"marks name the person of {len(people):,} images: {len(found):,} people"]
    if contradicted:
        notes.append(f"{len(contradicted):,} groups of images have contradicting marks and are excluded")
    return people, notes


def _root(index: str) -> Path:
    try:
        return Path(read_record(Path(index)).root)
    except DataError as error:
        raise DataError(
            f"the index of a mark cannot be read: {error.message}",
            hint="restore it, or correct the column index of the feedback file to where the index is now",
        ) from error


class _Groups:
    """Disjoint sets of images, by their digest or path."""

    def __init__(self) -> None:
        self._group: dict[Hashable, set[Hashable]] = {}

    def join(self, members: Sequence[Hashable]) -> None:
        """Make one group of these and of the groups that they are in."""
        joined: set[Hashable] = set(members)
        for member in members:
            joined |= self._group.get(member, set())
        for member in joined:
            self._group[member] = joined

    def of(self, member: Hashable) -> int | None:
        """The group of an image; None without one."""
        group = self._group.get(member)
        return None if group is None else id(group)
