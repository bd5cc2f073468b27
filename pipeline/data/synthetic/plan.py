"""What a data set will hold before anything is drawn: people, splits, and one `Shot` an image."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import numpy as np

from models.modality import Modality
from pipeline.data.synthetic.cameras import Station

Size = Literal["smoke", "demo", "large"]
Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, order=True)
class Shot:
    """One image to draw. Shots sort as an adapter orders its tables: person, camera, image number.

    `camera` is what a user calls it; `station` tells the visible side of a camera from its infrared one.
    """

    person: int
    camera: int
    station: int
    index: int
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class PictureSize:
    """Height and width of a picture in pixels."""

    height: int
    width: int


SIZES: Final[dict[str, PictureSize]] = {
    "smoke": PictureSize(144, 72),
    "demo": PictureSize(128, 64),
    "large": PictureSize(288, 144),
}
"""The usual picture of each size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All shots in adapter order, and the people of each split that the layout has, in rising order."""

    people: dict[Split, tuple[int, ...]]
    shots: tuple[Shot, ...]

    @property
    def num_people(self) -> int:
        """How many people the data set has; they are numbered from 1 without gaps."""
        return sum(len(numbers) for numbers in self.people.values())

    def counts(self, stations: Sequence[Station]) -> dict[str, dict[str, Any]]:
        """People, visible and infrared images of each split, and both by camera, for validators to compare with.

        Args:
            stations: Those of the layout.
        """
        split_of = {number: split for split, numbers in self.people.items() for number in numbers}
        modality_of = {station.number: station.modality for station in stations}
        images = Counter((split_of[shot.person], shot.camera) for shot in self.shots)
        totals = Counter((split_of[shot.person], modality_of[shot.station]) for shot in self.shots)
        pairs = {(split_of[shot.person], shot.camera, shot.person) for shot in self.shots}
        people = Counter((split, camera) for split, camera, _ in pairs)
        counts: dict[str, dict[str, Any]] = {}
        for split, members in self.people.items():
            cameras = {
                str(camera): {"images": images[split, camera], "people": people[split, camera]}
                for camera in sorted({station.camera for station in stations})
            }
            by_modality = {modality.value: totals[split, modality] for modality in Modality}
            counts[split] = {"people": len(members), **by_modality, "cameras": cameras}
        return counts


def stations_passed(rng: np.random.Generator, missing: float, stations: Sequence[Station]) -> tuple[int, ...]:
    """The numbers of the stations that one person passes: some left out, but two visible and an infrared one kept.

    Args:
        rng: Decides.
        missing: Probability that a station is left out.
        stations: Those there are.
    """
    modality_of = {station.number: station.modality for station in stations}
    least = {Modality.VISIBLE: 2, Modality.INFRARED: 1}
    passed = list(modality_of)
    for number in rng.permutation(passed).tolist():
        modality = modality_of[number]
        left = sum(modality_of[other] is modality for other in passed)
        if rng.random() < missing and left > least[modality]:
            passed.remove(number)
    return tuple(passed)
