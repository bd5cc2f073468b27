"""The LLCM layout: nine cameras that see people by day and, in infrared, by night."""

from pathlib import Path, PurePosixPath
from typing import Final

from models.modality import Modality, PerModality
from pipeline.data.synthetic.cameras import LLCM_STATIONS, Station
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.lists import Listing, write_labelled_list
from pipeline.data.synthetic.plan import Plan, Shot, Size, Split, stations_passed
from pipeline.runtime.seeds import numpy_generator

_PEOPLE: Final[dict[Size, dict[Split, int]]] = {
    "smoke": {"train": 12, "test": 8},
    "demo": {"train": 110, "test": 40},
    "large": {"train": 713, "test": 351},
}
# Images of each split. Those of `large` are published; those of `demo` are as many a person.
_IMAGES: Final[dict[Size, dict[Split, PerModality[int]]]] = {
    "smoke": {"train": PerModality(140, 112), "test": PerModality(80, 64)},
    "demo": {"train": PerModality(2614, 2156), "test": PerModality(989, 817)},
    "large": {"train": PerModality(16946, 13975), "test": PerModality(8680, 7166)},
}
# What the published folders, files and lists say for the two modalities.
_WORDS: Final = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}
# The published test images have no infrared ones of this camera.
_BLIND_IN_TEST: Final = 3


def plan_llcm(size: Size, seed: int, knobs: DrawnKnobs) -> Plan:
    """Lay out a data set. `large` has LLCM's own counts of people and images in each split and modality.

    Test people come after those trained on. Images are spread evenly over the cameras that people pass.
    """
    people: dict[Split, tuple[int, ...]] = {}
    shots: list[Shot] = []
    first = 1
    for split, count in _PEOPLE[size].items():
        people[split] = tuple(range(first, first + count))
        first += count
        shots.extend(_shots_of(split, people[split], _IMAGES[size][split], seed, knobs))
    return Plan(people, tuple(sorted(shots)))


def write_llcm_lists(folder: Path, listing: Listing) -> None:
    """Write `idx/`: both modalities' images of each split with labels, and the numbers of the test people."""
    plan = listing.plan
    lists = folder / "idx"
    lists.mkdir()
    modality_of = {station.number: station.modality for station in LLCM_STATIONS}
    for split, people in plan.people.items():
        for modality, word in _WORDS.items():
            shots = (shot for shot in plan.shots if modality_of[shot.station] is modality)
            write_labelled_list(lists / f"{split}_{word}.txt", shots, people)
    (lists / "test_id.txt").write_text(",".join(map(str, plan.people["test"])) + "\n", encoding="utf-8")


def _shots_of(
    split: Split, people: tuple[int, ...], totals: PerModality[int], seed: int, knobs: DrawnKnobs
) -> list[Shot]:
    open_stations = [
        station
        for station in LLCM_STATIONS
        if not (split == "test" and station.modality is Modality.INFRARED and station.camera == _BLIND_IN_TEST)
    ]
    passed = {
        person: stations_passed(
            numpy_generator(seed, "drawn", "presence", "llcm", person), knobs.missing_camera, open_stations
        )
        for person in people
    }
    shots: list[Shot] = []
    for modality, total in totals.items():
        pairs = [
            (person, station)
            for person in people
            for station in open_stations
            if station.modality is modality and station.number in passed[person]
        ]
        for (person, station), count in zip(pairs, _spread(total, len(pairs)), strict=True):
            shots.extend(_shot(split, station, person, index) for index in range(1, count + 1))
    return shots


def _spread(total: int, places: int) -> list[int]:
    """Shares of a total that differ by one at most, the larger ones at even distances."""
    assert total >= places, "somebody would pass a camera unseen"
    return [(place + 1) * total // places - place * total // places for place in range(places)]


def _shot(split: Split, station: Station, person: int, index: int) -> Shot:
    word = _WORDS[station.modality]
    folder = f"{word}/{person:04d}" if split == "train" else f"test_{word}/cam{station.camera}/{person:04d}"
    name = f"{person:04d}_c{station.camera:02d}_s000001_f{index:06d}_{word}.jpg"
    return Shot(person, station.camera, station.number, index, PurePosixPath(folder, name))
