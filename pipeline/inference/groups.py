"""Groups of images that show one passing person, searched as one: the crops of a track, a folder, or a pattern."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

import numpy as np
from jaxtyping import Float32, Int64

from pipeline.data.image_list import ListedImage
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.index import IndexedFile

logger = logging.getLogger(__name__)

GroupBy = Literal["mean", "medoid"]
GROUP_BY: Final = ("mean", "medoid")

_FIELD = re.compile(r"\{(\w*)\}")
_EXAMPLE = "for instance --group '{camera}/{track}_{}': images whose camera and track agree are a group"


Listed = ListedImage | IndexedFile


@dataclass(frozen=True, slots=True)
class Grouping:
    """How queries and gallery images become groups: `track`, `folder`, a pattern of paths, or empty for single images.

    `by` is the vector of a group: the mean of its unit vectors, or the vector of its most central image.
    """

    query: str = ""
    gallery: str = ""
    by: GroupBy = "mean"

    def __str__(self) -> str:
        if not (self.query or self.gallery):
            return "single images"
        return f"queries by {self.query or 'image'}, gallery by {self.gallery or 'image'}, {self.by}"


SINGLE: Final = Grouping()


@dataclass(frozen=True, slots=True)
class Entry:
    """What is searched and found: an image, or a group by its most central image, with what all its images share.

    `group` is empty for a single image; `time` is the earliest one.
    """

    path: str
    camera: str
    person: str
    track: str
    time: str
    group: str
    images: int


def entry_of(file: Listed) -> Entry:
    """The description of a single image."""
    return Entry(file.path, file.camera, file.person, file.track, file.time, group="", images=1)


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """The groups of a list of images, in the order of their first images.

    Group g has the images `rows[starts[g] : starts[g + 1]]`. `vectors` are unit rows, one a group; `central` is the row
    of each group's most central image.
    """

    files: Sequence[Listed]
    vectors: Float32[np.ndarray, "groups dim"]
    names: tuple[str, ...]
    rows: Int64[np.ndarray, " images"]
    starts: Int64[np.ndarray, " groups+1"]
    central: Int64[np.ndarray, " groups"]

    def __len__(self) -> int:
        return len(self.central)

    def people(self) -> list[str]:
        """The person of each group, empty if unknown or if its images differ."""
        if not self.names:
            return [one.person for one in self.files]
        return [self.entry(group).person for group in range(len(self))]

    def entry(self, group: int) -> Entry:
        """The description of a group."""
        members = [self.files[row] for row in self.rows[self.starts[group] : self.starts[group + 1]].tolist()]
        middle = self.files[int(self.central[group])]
        return Entry(
            path=middle.path,
            camera=_shared(one.camera for one in members),
            person=_shared(one.person for one in members),
            track=_shared(one.track for one in members),
            time=min((one.time for one in members if one.time), default=""),
            group=self.names[group] if self.names else "",
            images=len(members),
        )


def group_entries(
    files: Sequence[Listed], vectors: Float32[np.ndarray, "images dim"], rule: str, by: GroupBy
) -> Entries:
    """Put images with unit vectors into groups; images that do not fit the rule are groups of their own.

    Raises:
        ConfigError: The pattern is none.
        DataError: The rule fits no image: none has a track, no path is like the pattern; or a group's mean is zero.

    Cost: one sort, and two passes over the vectors; none for single images.
    """
    everyone = np.arange(len(files))
    if not rule:
        return Entries(files, vectors, (), everyone, np.arange(len(files) + 1), everyone)
    of_image = _names(files, rule)
    number: dict[str, int] = {}
    groups = np.array([number.setdefault(name, len(number)) for name in of_image], dtype=np.int64)
    rows = np.argsort(groups, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(groups)))
    sorted_vectors = vectors[rows]
    means = unit_rows(np.add.reduceat(sorted_vectors, starts[:-1], axis=0), "groups", tuple(number))
    nearness = np.einsum("nd,nd->n", sorted_vectors, means[groups[rows]])
    central = rows[np.lexsort((rows, -nearness, groups[rows]))[starts[:-1]]]
    if len(number) > 1:
        logger.info("%s images in %s groups by %s", f"{len(files):,}", f"{len(number):,}", rule)
    chosen = means if by == "mean" else vectors[central]
    return Entries(files, chosen.astype(np.float32), tuple(number), rows, starts, central)


def _names(files: Sequence[Listed], rule: str) -> list[str]:
    """The name of each image's group; its path if the rule leaves it out."""
    named = _rule(rule)
    found = [named(one) for one in files]
    alone = sum(name is None for name in found)
    if alone == len(found):
        if rule == "track":
            hint = "name a manifest with a column `track`, or take --group folder or a pattern of paths"
            raise DataError(f"none of {alone:,} images has a track", hint=hint)
        raise DataError(f"none of {alone:,} images is named like {rule}, first: {files[0].path}", hint=_EXAMPLE)
    if alone:
        counts = f"{alone:,}", f"{len(found):,}"
        logger.info("--group %s does not fit %s of %s images: each is searched alone", rule, *counts)
    return [one.path if name is None else name for one, name in zip(files, found, strict=True)]


def _rule(rule: str) -> Callable[[Listed], str | None]:
    if rule == "track":
        return lambda one: "/".join(part for part in (one.camera, one.track) if part) if one.track else None
    if rule == "folder":
        return lambda one: str(PurePosixPath(one.path).parent)
    expression = _compiled(rule)

    def named(one: Listed) -> str | None:
        match = expression.fullmatch(one.path)
        return None if match is None else "/".join(match.groups())

    return named


def _compiled(pattern: str) -> re.Pattern[str]:
    fields = [field[1] for field in _FIELD.finditer(pattern)]
    if not any(fields):
        hint = f"choose track, folder, or a pattern of paths; {_EXAMPLE}"
        raise ConfigError(f"--group {pattern!r} has no named part in braces", hint=hint)
    literals = _FIELD.split(pattern)[::2]
    parts = [
        ("([^/]+?)" if name else "[^/]+?") + re.escape(after) for name, after in zip(fields, literals[1:], strict=True)
    ]
    return re.compile(re.escape(literals[0]) + "".join(parts))


def _shared(values: Iterable[str]) -> str:
    """The value of all, empty if they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else ""
