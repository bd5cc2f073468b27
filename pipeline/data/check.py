"""Completeness of a data set: expected against found counts, the first offenders, and advice."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from models.modality import PerModality
from pipeline.data.synthetic.record import DRAWN_FILE
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

MAX_OFFENDERS = 5
MAKE_AGAIN = "make the synthetic data set again"


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One quantity of a data set, expected and found; `advice` is the hint if they differ."""

    name: str
    expected: int
    found: int
    advice: str = ""

    @property
    def passed(self) -> bool:
        """Whether both agree."""
        return self.expected == self.found


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """All quantities of a data set; `offenders` explain the first differences."""

    rows: tuple[CheckRow, ...]
    offenders: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def explained(cls, rows: Iterable[CheckRow], offenders: Iterable[str], notes: Iterable[str] = ()) -> "DatasetCheck":
        """A check with its first five offenders, which are computed only if a row differs."""
        check = cls(tuple(rows), (), tuple(notes))
        return check if check.passed else replace(check, offenders=tuple(islice(offenders, MAX_OFFENDERS)))

    @property
    def passed(self) -> bool:
        """Whether every row agrees."""
        return all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[CheckRow, ...]:
        """The rows that differ."""
        return tuple(row for row in self.rows if not row.passed)

    def to_dict(self) -> dict[str, Any]:
        """The check as plain JSON types."""
        return {
            "passed": self.passed,
            "rows": [asdict(row) | {"passed": row.passed} for row in self.rows],
            "offenders": list(self.offenders),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """People of a split, and images of each modality."""

    people: int
    images: PerModality[int]


def accept(root: Path, check: DatasetCheck, allow_partial: bool) -> bool:
    """Refuse a data set that is not complete, or warn if partial data are allowed; return whether it is partial."""
    if check.passed:
        return False
    rows = [f"{row.name}: found {row.found:,}, expected {row.expected:,}" for row in check.failures]
    shown = "; ".join(rows[:5]) + (f"; and {len(rows) - 5} more" if len(rows) > 5 else "")
    offenders = f" ({'; '.join(check.offenders)})" if check.offenders else ""
    message = f"{root} is not complete: {shown}{offenders}"
    if not allow_partial:
        advice = check.failures[0].advice or "unpack the data set again"
        raise DataError(
            message,
            hint=f"{advice}; or use the existing images: data.allow_partial=true marks every result. "
            "`vireid data check` lists all differences",
        )
    logger.warning("%s", message)
    return True


def drawn_split_counts(drawn: Mapping[str, Any], splits: tuple[str, ...]) -> dict[str, SplitCounts]:
    """The counts of each split that a synthetic data set recorded."""
    try:
        return {
            split: SplitCounts(
                people=int(counts["people"]), images=PerModality(int(counts["visible"]), int(counts["infrared"]))
            )
            for split, counts in ((split, drawn["counts"][split]) for split in splits)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{DRAWN_FILE} lacks the numbers of people and images of each modality in each split", hint=MAKE_AGAIN
        ) from error


def unpaired_people(drawn: Mapping[str, Any] | None) -> PerModality[int]:
    """Number of training people who are in images of that modality only; 0 of photographs, for which it is unknown."""
    try:
        recorded = (drawn or {}).get("unpaired", {})
        return PerModality.build(lambda modality: int(recorded.get(f"{modality}_only", 0)))
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{DRAWN_FILE} has no numbers of unpaired people", hint=MAKE_AGAIN) from error


def unpaired_notes(drawn: Mapping[str, Any] | None) -> list[str]:
    """One line about the training people of a synthetic data set who are in one modality only, if there are any."""
    only = unpaired_people(drawn)
    each = " and ".join(f"{number:,} in {modality} images only" for modality, number in only.items())
    return [f"unpaired training people: {each}"] if any(only) else []
