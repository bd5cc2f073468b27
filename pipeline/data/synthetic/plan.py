"""The content of a data set before any image is drawn: people, splits, one `Shot` an image, and label lists."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.synthetic.cameras import Station
from pipeline.runtime.seeds import numpy_generator

Size = Literal["smoke", "demo", "large"]
Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, order=True)
class Shot:
    """One image to draw. Shots sort as an adapter orders its tables: person, camera, image number.

    `camera` is the data set's number; `station` distinguishes a camera's visible and infrared side.
    """

    person: int
    camera: int
    station: int
    index: int
    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class PictureSize:
    """Height and width of an image in pixels."""

    height: int
    width: int


SIZES: Final[dict[str, PictureSize]] = {
    "smoke": PictureSize(144, 72),
    "demo": PictureSize(128, 64),
    "large": PictureSize(288, 144),
}
"""The default image size of each data set size."""


_NOBODY: Final[PerModality[tuple[int, ...]]] = PerModality((), ())


@dataclass(frozen=True, slots=True)
class Plan:
    """All shots in adapter order, and the people of each split in ascending order.

    `unpaired` has the training people who are in that modality only.
    """

    people: dict[Split, tuple[int, ...]]
    shots: tuple[Shot, ...]
    unpaired: PerModality[tuple[int, ...]] = _NOBODY

    @property
    def num_people(self) -> int:
        """Number of people; they are numbered from 1 without gaps."""
        return sum(len(numbers) for numbers in self.people.values())

    def counts(self, stations: Sequence[Station]) -> dict[str, dict[str, Any]]:
        """People, visible and infrared images of each split, and both by camera, for validators to compare with."""
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
    """Sample the stations with images of one person, at least two visible and one infrared."""
    modality_of = {station.number: station.modality for station in stations}
    least = {Modality.VISIBLE: 2, Modality.INFRARED: 1}
    passed = list(modality_of)
    for number in rng.permutation(passed).tolist():
        modality = modality_of[number]
        left = sum(modality_of[other] is modality for other in passed)
        if rng.random() < missing and left > least[modality]:
            passed.remove(number)
    return tuple(passed)


def with_unpaired(plan: Plan, share: float, seed: int, stations: Sequence[Station]) -> Plan:
    """The same data set without one modality of a share of the people of `train`, chosen by the seed.

    Half of them are in visible images only, one more where their number is odd, the others in infrared images only.
    The people of `val` and `test` keep both modalities. All other images are those of the whole data set.
    """
    trained = plan.people["train"]
    chosen = numpy_generator(seed, "drawn", "unpaired").permutation(trained)[: int(share * len(trained) + 0.5)]
    middle = (len(chosen) + 1) // 2
    only = PerModality(*(tuple(sorted(half.tolist())) for half in (chosen[:middle], chosen[middle:])))
    modality_of = {station.number: station.modality for station in stations}
    shots = tuple(shot for shot in plan.shots if shot.person not in only[modality_of[shot.station].other])
    return replace(plan, shots=shots, unpaired=only)


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a data set's lists; one caption a shot, in the order of the plan."""

    plan: Plan
    seed: int
    captions: tuple[str, ...]


def write_labelled_list(path: Path, shots: Iterable[Shot], people: Iterable[int]) -> None:
    """Write one line an image, `path label`: the shots of these people in the order given.

    A label is a person's place among `people`, from 0: comparable between lists of the same people only.
    """
    labels = {person: label for label, person in enumerate(people)}
    lines = [f"{shot.path} {labels[shot.person]}\n" for shot in shots if shot.person in labels]
    path.write_text("".join(lines), encoding="utf-8")
