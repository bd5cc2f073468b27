"""What a data set will hold before anything is drawn: people, splits, and one `Shot` an image."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from models.modality import Modality

Size = Literal["smoke", "demo", "large"]
Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, order=True)
class Shot:
    """One image to draw. Shots sort as an adapter orders its table: person, camera, image number."""

    person: int
    camera: int
    index: int
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class SizeFacts:
    """People of each split, images a person and camera, and the usual picture size in pixels."""

    people: dict[Split, int]
    shots: dict[Split, int]
    height: int
    width: int


SIZES: Final[dict[str, SizeFacts]] = {
    "smoke": SizeFacts({"train": 12, "val": 4, "test": 8}, {"train": 3, "val": 3, "test": 3}, 144, 72),
    "demo": SizeFacts({"train": 110, "val": 12, "test": 40}, {"train": 6, "val": 6, "test": 10}, 128, 64),
    "large": SizeFacts({"train": 296, "val": 99, "test": 96}, {}, 288, 144),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """All shots in adapter order, and the people of each split in rising order."""

    people: dict[Split, tuple[int, ...]]
    shots: tuple[Shot, ...]

    @property
    def num_people(self) -> int:
        """How many people the data set has; they are numbered from 1 without gaps."""
        return sum(len(numbers) for numbers in self.people.values())

    def counts(self, modalities: Mapping[int, Modality]) -> dict[str, dict[str, Any]]:
        """People, visible and infrared images of each split, and both by camera, for validators to compare with.

        Args:
            modalities: Modality of each camera.
        """
        split_of = {number: split for split, numbers in self.people.items() for number in numbers}
        images = Counter((split_of[shot.person], shot.camera) for shot in self.shots)
        pairs = {(split_of[shot.person], shot.camera, shot.person) for shot in self.shots}
        people = Counter((split, camera) for split, camera, _ in pairs)
        counts: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            totals = {
                modality.value: sum(images[split, camera] for camera, its in modalities.items() if its is modality)
                for modality in Modality
            }
            cameras = {
                str(camera): {"images": images[split, camera], "people": people[split, camera]} for camera in modalities
            }
            counts[split] = {"people": len(self.people[split]), **totals, "cameras": cameras}
        return counts
