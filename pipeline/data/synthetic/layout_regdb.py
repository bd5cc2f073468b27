"""The RegDB layout: everybody before one dual camera, ten images a modality, and ten random halves of the people."""

from pathlib import Path, PurePosixPath
from typing import Final

from models.modality import Modality
from pipeline.data.synthetic.cameras import REGDB_STATIONS, Station
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.lists import Listing, write_labelled_list
from pipeline.data.synthetic.plan import SIZES, PictureSize, Plan, Shot, Size, Split
from pipeline.runtime.seeds import numpy_generator

_PEOPLE: Final[dict[Size, int]] = {"smoke": 24, "demo": 100, "large": 412}
_IMAGES: Final = 10
_NUM_TRIALS: Final = 10
# What the published folders, files and lists say for the two modalities.
_WORDS: Final = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}

REGDB_SIZES: Final[dict[str, PictureSize]] = {**SIZES, "large": PictureSize(128, 64)}
"""As there, pictures are small bitmaps, which an encoder's input size enlarges."""


def plan_regdb(size: Size, seed: int, _knobs: DrawnKnobs) -> Plan:
    """Lay out a data set: `large` has RegDB's 412 people. Nobody misses the only camera.

    The splits are those of trial 1; the other trials divide the same people otherwise.
    """
    num_people = _PEOPLE[size]
    shots = [
        _shot(station, person, index)
        for person in range(1, num_people + 1)
        for station in REGDB_STATIONS
        for index in range(1, _IMAGES + 1)
    ]
    return Plan(_halves(num_people, seed, trial=1), tuple(sorted(shots)))


def write_regdb_lists(folder: Path, listing: Listing) -> None:
    """Write `idx/`: of each trial, the visible and infrared images of the people trained on, and of the others."""
    plan = listing.plan
    lists = folder / "idx"
    lists.mkdir()
    for trial in range(1, _NUM_TRIALS + 1):
        for split, people in _halves(plan.num_people, listing.seed, trial).items():
            for station in REGDB_STATIONS:
                shots = (shot for shot in plan.shots if shot.station == station.number)
                name = f"{split}_{_WORDS[station.modality]}_{trial}.txt"
                write_labelled_list(lists / name, shots, people)


def _shot(station: Station, person: int, index: int) -> Shot:
    word = _WORDS[station.modality]
    # The two halves of the camera release in turn: no instant is in both modalities.
    instant = 2 * (_IMAGES * (person - 1) + index) - (station.modality is Modality.VISIBLE)
    path = PurePosixPath(word.capitalize(), str(person), f"drawn_{word[0]}_{instant:05d}_{person}.bmp")
    return Shot(person, station.camera, station.number, index, path)


def _halves(num_people: int, seed: int, trial: int) -> dict[Split, tuple[int, ...]]:
    """The people trained on and tested on in one trial, each in rising order."""
    drawn = numpy_generator(seed, "drawn", "trial", trial).permutation(num_people) + 1
    trained, tested = drawn[: num_people // 2], drawn[num_people // 2 :]
    return {"train": tuple(sorted(trained.tolist())), "test": tuple(sorted(tested.tolist()))}
