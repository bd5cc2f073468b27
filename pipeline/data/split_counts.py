"""How many people and images each split of a data set should have: published, or written down where it was drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.modality import PerModality
from pipeline.data.synthetic.record import DRAWN_FILE
from pipeline.errors import DataError


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """People of a split, and images of each modality."""

    people: int
    images: PerModality[int]


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
