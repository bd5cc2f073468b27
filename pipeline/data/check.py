"""Is this all of a data set? Expected against found, the first offenders, and what a difference means for the user."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.modality import PerModality
from pipeline.data.synthetic.record import DRAWN_FILE
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

MAX_OFFENDERS = 5


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One quantity of a data set, as it should be and as it is; `advice` says what to do when the two differ."""

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
    """All quantities of a data set.

    Attributes:
        rows: Each with what was expected and what was found.
        offenders: What explains the first differences; empty when all agree.
        notes: What was found where nothing was expected, such as the sizes of galleries.
    """

    rows: tuple[CheckRow, ...]
    offenders: tuple[str, ...]
    notes: tuple[str, ...] = ()

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
    """Refuse a data set that is not complete, or go on with a warning where the user wants that.

    Returns:
        Whether the data set is partial.

    Raises:
        DataError: The check failed and partial data are not allowed; the first five differences are named.
    """
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
            hint=f"{advice}; or use what is there: data.allow_partial=true marks every result. "
            "`vireid data check` lists everything",
        )
    logger.warning("%s", message)
    return True


def drawn_split_counts(drawn: Mapping[str, Any], splits: tuple[str, ...]) -> dict[str, SplitCounts]:
    """What a drawn data set says about its splits.

    Raises:
        DataError: It does not say how many people and images each split has.
    """
    try:
        return {
            split: SplitCounts(
                people=int(counts["people"]), images=PerModality(int(counts["visible"]), int(counts["infrared"]))
            )
            for split, counts in ((split, drawn["counts"][split]) for split in splits)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{DRAWN_FILE} does not say how many people and images of each modality each split has",
            hint="draw the data set again",
        ) from error
