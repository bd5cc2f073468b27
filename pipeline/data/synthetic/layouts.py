"""Folders, file names and lists of SYSU-MM01, RegDB, LLCM and a manifest data set."""

import csv
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from scipy.io import savemat

from models.modality import Modality, PerModality
from pipeline.data.synthetic.cameras import LLCM_STATIONS, REGDB_STATIONS, SYSU_STATIONS, Station
from pipeline.data.synthetic.knobs import SyntheticKnobs
from pipeline.data.synthetic.plan import (
    SIZES,
    SPLITS,
    Listing,
    PictureSize,
    Plan,
    Shot,
    Size,
    Split,
    stations_passed,
    write_labelled_list,
)
from pipeline.runtime.seeds import numpy_generator

_SYSU_CAMERAS: Final = (1, 2, 3, 4, 5, 6)
_VALIDATION_CAMERAS: Final = (3, 4, 5)
_NUM_TRIALS: Final = 10

_SYSU_PEOPLE: Final[dict[Size, dict[Split, int]]] = {
    "smoke": {"train": 12, "val": 4, "test": 8},
    "demo": {"train": 110, "val": 12, "test": 40},
}
# Images a person and camera.
_SYSU_IMAGES: Final[dict[Size, dict[Split, int]]] = {
    "smoke": {"train": 3, "val": 3, "test": 3},
    "demo": {"train": 6, "val": 6, "test": 10},
}

# Computed from SYSU-MM01's permutation file: number of people of a split by cameras.
_LARGE_PEOPLE: Final[dict[Split, dict[tuple[int, ...], int]]] = {
    "train": {
        _SYSU_CAMERAS: 180, (1, 2, 3, 5, 6): 11, (3, 4, 5, 6): 5, (1, 2, 4, 5, 6): 3, (2, 3, 4, 5, 6): 1,
        (3, 4, 5): 92, (3, 4): 2, (3, 5): 2,
    },
    "val": {(3, 4, 5): 96, (3, 4): 3},
    "test": {
        _SYSU_CAMERAS: 53, (3, 4, 5, 6): 37, (1, 2, 4, 5, 6): 2, (4, 5, 6): 1, (3, 4, 6): 1, (1, 2, 3, 5, 6): 1,
        (3, 5, 6): 1,
    },
}  # fmt: skip
# Images of each camera, from the same file.
_LARGE_IMAGES: Final[dict[Split, dict[int, int]]] = {
    "train": {1: 4721, 2: 5753, 3: 5929, 4: 4821, 5: 4989, 6: 4000},
    "val": {3: 1980, 4: 990, 5: 984},
    "test": {1: 1374, 2: 1565, 3: 1883, 4: 1918, 5: 1918, 6: 1920},
}
_REGDB_PEOPLE: Final[dict[Size, int]] = {"smoke": 24, "demo": 100, "large": 412}
_REGDB_IMAGES: Final = 10
# Names of the two modalities in the published folders, files and lists.
_REGDB_WORDS: Final = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}
REGDB_SIZES: Final[dict[str, PictureSize]] = {**SIZES, "large": PictureSize(128, 64)}
"""As in RegDB, images are small bitmaps, which an encoder's input size enlarges."""
_LLCM_PEOPLE: Final[dict[Size, dict[Split, int]]] = {
    "smoke": {"train": 12, "test": 8},
    "demo": {"train": 110, "test": 40},
    "large": {"train": 713, "test": 351},
}
# Images of each split. `large` is published; `demo` has as many a person.
_LLCM_IMAGES: Final[dict[Size, dict[Split, PerModality[int]]]] = {
    "smoke": {"train": PerModality(140, 112), "test": PerModality(80, 64)},
    "demo": {"train": PerModality(2614, 2156), "test": PerModality(989, 817)},
    "large": {"train": PerModality(16946, 13975), "test": PerModality(8680, 7166)},
}
# Names of the two modalities in the published folders, files and lists.
_LLCM_WORDS: Final = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}
# The published test images have no infrared ones of this camera.
_BLIND_IN_TEST: Final = 3
_COLUMNS: Final = ("path", "modality", "camera", "person", "split", "caption")


def plan_sysu(size: Size, seed: int, knobs: SyntheticKnobs) -> Plan:
    """Lay out a data set. `large` has SYSU-MM01's own numbers of people and images of every camera.

    People are numbered as there: those with images of cameras 1, 2 or 6 come first, so that these cameras' cells of
    the permutation file are fewer. Validation people have images of cameras 3, 4 and 5 only.
    """
    presence = _large_presence() if size == "large" else _small_presence(size, seed, knobs)
    ordered = sorted(presence, key=lambda entry: not {1, 2, 6} & set(entry[1]))
    numbered = [(number, split, cameras) for number, (split, cameras) in enumerate(ordered, start=1)]
    shots: list[Shot] = []
    for split in SPLITS:
        for camera in _SYSU_CAMERAS:
            members = [number for number, its_split, cameras in numbered if its_split == split and camera in cameras]
            for number, count in zip(members, _sysu_shares(size, split, camera, len(members)), strict=True):
                paths = (PurePosixPath(f"cam{camera}/{number:04d}/{index:04d}.jpg") for index in range(1, count + 1))
                shots.extend(Shot(number, camera, camera, index, path) for index, path in enumerate(paths, start=1))
    people = {split: tuple(number for number, its_split, _ in numbered if its_split == split) for split in SPLITS}
    return Plan(people, tuple(sorted(shots)))


def write_sysu_lists(folder: Path, listing: Listing) -> None:
    """Write `exp/`: the id lists as text and as MATLAB vectors, and the gallery permutations."""
    plan = listing.plan
    lists = folder / "exp"
    lists.mkdir()
    everyone = tuple(range(1, plan.num_people + 1))
    for name, numbers in (*plan.people.items(), ("available", everyone)):
        (lists / f"{name}_id.txt").write_text(",".join(map(str, numbers)) + "\n", encoding="utf-8")
        savemat(lists / f"{name}_id.mat", {"id": np.array([numbers], np.uint16)})
    savemat(lists / "rand_perm_cam.mat", {"rand_perm_cam": _permutations(plan, listing.seed)})


def _large_presence() -> list[tuple[Split, tuple[int, ...]]]:
    return [
        (split, cameras)
        for split in ("train", "test", "val")
        for cameras, count in _LARGE_PEOPLE[split].items()
        for _ in range(count)
    ]


def _small_presence(size: Size, seed: int, knobs: SyntheticKnobs) -> list[tuple[Split, tuple[int, ...]]]:
    presence: list[tuple[Split, tuple[int, ...]]] = []
    for split in ("train", "test"):
        for index in range(_SYSU_PEOPLE[size][split]):
            rng = numpy_generator(seed, "drawn", "presence", split, index)
            presence.append((split, stations_passed(rng, knobs.missing_camera, SYSU_STATIONS)))
    presence.extend(("val", _VALIDATION_CAMERAS) for _ in range(_SYSU_PEOPLE[size]["val"]))
    return presence


def _sysu_shares(size: Size, split: Split, camera: int, num_people: int) -> list[int]:
    """Images of each person: a constant, or the camera's total spread evenly."""
    if size != "large":
        return [_SYSU_IMAGES[size][split]] * num_people
    if num_people == 0:
        return []
    least, more = divmod(_LARGE_IMAGES[split][camera], num_people)
    return [least + (position < more) for position in range(num_people)]


def _permutations(plan: Plan, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.object_]]:
    """Six cells of person cells, each empty or 10 x n: a row a trial, a permutation of 1..n."""
    counts: dict[tuple[int, int], int] = {}
    for shot in plan.shots:
        counts[shot.camera, shot.person] = max(counts.get((shot.camera, shot.person), 0), shot.index)
    cells = np.empty((len(_SYSU_CAMERAS), 1), object)
    for camera in _SYSU_CAMERAS:
        last = max(person for its_camera, person in counts if its_camera == camera)
        people = np.empty((last, 1), object)
        for person in range(1, last + 1):
            count = counts.get((camera, person), 0)
            rng = numpy_generator(seed, "drawn", "gallery", camera, person)
            rows = [rng.permutation(count) + 1 for _ in range(_NUM_TRIALS)]
            people[person - 1, 0] = np.array(rows, np.uint16) if count else np.empty((0, 0), np.uint16)
        cells[camera - 1, 0] = people
    return cells


def plan_regdb(size: Size, seed: int, _knobs: SyntheticKnobs) -> Plan:
    """Lay out a data set with the people of split 1; `large` has RegDB's 412, all seen by the only camera."""
    num_people = _REGDB_PEOPLE[size]
    shots = [
        _regdb_shot(station, person, index)
        for person in range(1, num_people + 1)
        for station in REGDB_STATIONS
        for index in range(1, _REGDB_IMAGES + 1)
    ]
    return Plan(_halves(num_people, seed, trial=1), tuple(sorted(shots)))


def write_regdb_lists(folder: Path, listing: Listing) -> None:
    """Write `idx/`: for each split, the visible and infrared images of the training and of the test people."""
    plan = listing.plan
    lists = folder / "idx"
    lists.mkdir()
    for trial in range(1, _NUM_TRIALS + 1):
        for split, people in _halves(plan.num_people, listing.seed, trial).items():
            for station in REGDB_STATIONS:
                shots = (shot for shot in plan.shots if shot.station == station.number)
                name = f"{split}_{_REGDB_WORDS[station.modality]}_{trial}.txt"
                write_labelled_list(lists / name, shots, people)


def _regdb_shot(station: Station, person: int, index: int) -> Shot:
    word = _REGDB_WORDS[station.modality]
    # The two sensors of the camera alternate: no instant is in both modalities.
    instant = 2 * (_REGDB_IMAGES * (person - 1) + index) - (station.modality is Modality.VISIBLE)
    path = PurePosixPath(word.capitalize(), str(person), f"drawn_{word[0]}_{instant:05d}_{person}.bmp")
    return Shot(person, station.camera, station.number, index, path)


def _halves(num_people: int, seed: int, trial: int) -> dict[Split, tuple[int, ...]]:
    """Training and test people of one split, each in ascending order."""
    drawn = numpy_generator(seed, "drawn", "trial", trial).permutation(num_people) + 1
    trained, tested = drawn[: num_people // 2], drawn[num_people // 2 :]
    return {"train": tuple(sorted(trained.tolist())), "test": tuple(sorted(tested.tolist()))}


def plan_llcm(size: Size, seed: int, knobs: SyntheticKnobs) -> Plan:
    """Lay out a data set. `large` has LLCM's own numbers of people and images in each split and modality.

    Test people are numbered after training people. Images are spread evenly over a person's cameras.
    """
    people: dict[Split, tuple[int, ...]] = {}
    shots: list[Shot] = []
    first = 1
    for split, count in _LLCM_PEOPLE[size].items():
        people[split] = tuple(range(first, first + count))
        first += count
        shots.extend(_llcm_shots(split, people[split], _LLCM_IMAGES[size][split], seed, knobs))
    return Plan(people, tuple(sorted(shots)))


def write_llcm_lists(folder: Path, listing: Listing) -> None:
    """Write `idx/`: both modalities' images of each split with labels, and the numbers of the test people."""
    plan = listing.plan
    lists = folder / "idx"
    lists.mkdir()
    modality_of = {station.number: station.modality for station in LLCM_STATIONS}
    for split, people in plan.people.items():
        for modality, word in _LLCM_WORDS.items():
            shots = (shot for shot in plan.shots if modality_of[shot.station] is modality)
            write_labelled_list(lists / f"{split}_{word}.txt", shots, people)
    (lists / "test_id.txt").write_text(",".join(map(str, plan.people["test"])) + "\n", encoding="utf-8")


def _llcm_shots(
    split: Split, people: tuple[int, ...], totals: PerModality[int], seed: int, knobs: SyntheticKnobs
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
        for (person, station), count in zip(pairs, _even_shares(total, len(pairs)), strict=True):
            shots.extend(_llcm_shot(split, station, person, index) for index in range(1, count + 1))
    return shots


def _even_shares(total: int, places: int) -> list[int]:
    """Shares of a total that differ by at most one, the larger ones at even distances."""
    assert total >= places, "a person would have no image of a camera"
    return [(place + 1) * total // places - place * total // places for place in range(places)]


def _llcm_shot(split: Split, station: Station, person: int, index: int) -> Shot:
    word = _LLCM_WORDS[station.modality]
    folder = f"{word}/{person:04d}" if split == "train" else f"test_{word}/cam{station.camera}/{person:04d}"
    name = f"{person:04d}_c{station.camera:02d}_s000001_f{index:06d}_{word}.jpg"
    return Shot(person, station.camera, station.number, index, PurePosixPath(folder, name))


def plan_manifest(size: Size, seed: int, knobs: SyntheticKnobs) -> Plan:
    """Lay out the same people, cameras and pixels as the SYSU-MM01 layout."""
    plan = plan_sysu(size, seed, knobs)
    return replace(plan, shots=tuple(replace(shot, path=PurePosixPath("images") / shot.path) for shot in plan.shots))


def write_manifest(folder: Path, listing: Listing) -> None:
    """Write `manifest.csv`, one row an image in the order of the plan; paths are relative to the folder."""
    plan = listing.plan
    split_of = {person: split for split, people in plan.people.items() for person in people}
    modality_of = {station.number: station.modality for station in SYSU_STATIONS}
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(_COLUMNS)
        for shot, caption in zip(plan.shots, listing.captions, strict=True):
            modality = modality_of[shot.station].value
            table.writerow((shot.path, modality, shot.camera, shot.person, split_of[shot.person], caption))
