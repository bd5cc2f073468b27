"""Marks of users on search results: one line of `feedback.csv` a mark, appended by `vireid serve`."""

import csv
import errno
import fcntl
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.data.tables import read_table
from pipeline.data.values import modality_named, moment
from pipeline.errors import CheckpointError, DataError
from pipeline.runtime.text_files import read_text

RIGHT, WRONG, WITHDRAWN = "right", "wrong", "withdrawn"
MARKS = (RIGHT, WRONG, WITHDRAWN)
_IMAGE = re.compile(r"(.*?) sha256:([0-9a-f]{64})(?:; |$)")
_HINT = "correct these lines, or remove them; docs/using.md describes the columns"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the file: a user's mark on one hit of one query.

    `query` has the name and `sha256:DIGEST` of each image of the query; `hit` is the path in the index, whose folder is
    `index`; `run` is the name of the encoder's run. A later mark on the same query and hit replaces an earlier one.
    """

    time: str
    query: str
    query_modality: str
    hit: str
    rank: int
    score: float
    mark: str
    run: str
    index: str

    @property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of the images of the query, sorted: equal for the same images in any order, by any name."""
        return tuple(sorted(digest for _, digest in query_files(self.query)))

    @property
    def subject(self) -> tuple[tuple[str, ...], str, str]:
        """What the mark is about: query, index and hit."""
        return self.digests, self.index, self.hit


COLUMNS = tuple(field.name for field in fields(Mark))


def query_name(images: Iterable[tuple[str, str]]) -> str:
    """The cell `query` of images, each with its name and its SHA-256; what is not printable in a name is replaced.

    >>> query_name([("a.jpg", "12"), ("b.jpg", "34")])
    'a.jpg sha256:12; b.jpg sha256:34'
    """
    return "; ".join(
        f"{''.join(sign if sign.isprintable() else '_' for sign in name)} sha256:{digest}" for name, digest in images
    )


def query_files(query: str) -> list[tuple[str, str]]:
    """Name and SHA-256 of each image of a cell `query`; empty for other text."""
    return _IMAGE.findall(query)


def append_mark(path: Path, mark: Mark) -> None:
    """Append a line, after the header if the file is new or empty; whole or not at all.

    Safe with several threads and processes at once, and synced to disk.

    Raises:
        CheckpointError: It cannot be written; the file is as before.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # released with the descriptor
            _append(descriptor, mark)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written: {error.strerror}", hint="free some space, or name another file"
        ) from error


def _append(descriptor: int, mark: Mark) -> None:
    size = os.fstat(descriptor).st_size
    rows = [] if size else [COLUMNS]
    text = io.StringIO()
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        text.write("\n")  # a line that was edited by hand, or cut
    csv.writer(text, lineterminator="\n").writerows([*rows, astuple(mark)])
    content = text.getvalue().encode(errors="backslashreplace")
    try:
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def read_marks(path: Path) -> list[Mark]:
    """The lines of a file, in order.

    Raises:
        DataError: There is no such file, or a line is not a mark; the first is named with the reason.
    """
    text = read_text(path, kind="feedback file", origin="`vireid serve` writes one")
    table = read_table(path.name, text, COLUMNS, _HINT)
    if table is None:
        return []
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{path}: no column {', '.join(map(repr, missing))}", hint=_HINT)
    marks: list[Mark] = []
    mistakes = list(table.faults)
    for line, row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        try:
            marks.append(_mark(cells))
        except ValueError as error:
            mistakes.append((line, str(error)))
    if mistakes:
        line, reason = min(mistakes)
        count = f"{len(mistakes):,} line" + "s are no marks" if len(mistakes) > 1 else "a line is no mark"
        raise DataError(f"{path}: {count}; line {line}: {reason}", hint=_HINT)
    return marks


def _mark(cells: Mapping[str, str]) -> Mark:
    """A line as a mark; ValueError with the reason if it is none."""
    for name in COLUMNS:
        if not cells[name].strip():
            raise ValueError(f"no {name}")
    mark = cells["mark"].strip().lower()
    if mark not in MARKS:
        raise ValueError(f"mark {mark!r}, not {', '.join(MARKS)}")
    modality = modality_named(cells["query_modality"])
    if modality is None:
        raise ValueError(f"query_modality {cells['query_modality']!r} is not visible or infrared")
    if not query_files(cells["query"]):
        raise ValueError("query does not end in sha256: and 64 hexadecimal digits")
    if not cells["rank"].strip().isdecimal() or int(cells["rank"]) < 1:
        raise ValueError(f"rank {cells['rank']!r} is not a number from 1")
    score = _number("score", cells["score"])
    if not -1.01 <= score <= 1.01:
        raise ValueError(f"score {cells['score']!r} is not between -1 and 1")
    try:
        moment(cells["time"])
    except (ValueError, OverflowError) as error:
        raise ValueError(f"time {cells['time']!r} is not like 2026-11-28T14:03:00Z") from error
    place = cells["run"], cells["index"]
    return Mark(
        cells["time"], cells["query"], str(modality), cells["hit"], int(cells["rank"]), score, mark, *place
    )  # fmt: skip


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} {text!r} is not a number") from error


def standing(marks: Sequence[Mark]) -> list[Mark]:
    """The last mark on each query and hit, without withdrawn ones."""
    last = {mark.subject: mark for mark in marks}
    return [mark for mark in last.values() if mark.mark != WITHDRAWN]


@dataclass(frozen=True, slots=True)
class RankCount:
    """Marks on the hits of one rank."""

    rank: int
    right: int
    wrong: int

    @property
    def precision(self) -> float:
        """Share of the marked hits that are right."""
        return self.right / (self.right + self.wrong)


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """Counts of the marks that stand, for one run.

    `first_marked` first hits have a mark, `first_right` of them a right one.
    """

    run: str
    queries: int
    marks: int
    right: int
    first_marked: int
    first_right: int
    ranks: tuple[RankCount, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        ranks = [asdict(one) | {"precision": one.precision} for one in self.ranks]
        return asdict(self) | {"ranks": ranks}


def count_marks(marks: Sequence[Mark]) -> list[FeedbackCounts]:
    """Counts of the marks that stand for each run, in the order of first marks."""
    by_run: defaultdict[str, list[Mark]] = defaultdict(list)
    for mark in standing(marks):
        by_run[mark.run].append(mark)
    return [_counts(run, some) for run, some in by_run.items()]


def _counts(run: str, marks: Sequence[Mark]) -> FeedbackCounts:
    first = [mark.mark == RIGHT for mark in marks if mark.rank == 1]
    tally: defaultdict[int, list[bool]] = defaultdict(list)
    for mark in marks:
        tally[mark.rank].append(mark.mark == RIGHT)
    ranks = tuple(RankCount(rank, sum(tally[rank]), len(tally[rank]) - sum(tally[rank])) for rank in sorted(tally))
    return FeedbackCounts(
        run=run,
        queries=len({mark.digests for mark in marks}),
        marks=len(marks),
        right=sum(mark.mark == RIGHT for mark in marks),
        first_marked=len(first),
        first_right=sum(first),
        ranks=ranks,
    )
