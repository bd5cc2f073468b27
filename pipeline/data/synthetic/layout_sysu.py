"""The SYSU-MM01 layout: who passes which camera, where images lie, and the lists and permutations beside them."""

from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from scipy.io import savemat

from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.lists import Listing
from pipeline.data.synthetic.plan import SPLITS, Plan, Shot, Size, Split, stations_passed
from pipeline.runtime.seeds import numpy_generator

_ALL: Final = (1, 2, 3, 4, 5, 6)
_VALIDATION: Final = (3, 4, 5)
_NUM_TRIALS: Final = 10

_PEOPLE: Final[dict[Size, dict[Split, int]]] = {
    "smoke": {"train": 12, "val": 4, "test": 8},
    "demo": {"train": 110, "val": 12, "test": 40},
}
# Images a person and camera.
_IMAGES: Final[dict[Size, dict[Split, int]]] = {
    "smoke": {"train": 3, "val": 3, "test": 3},
    "demo": {"train": 6, "val": 6, "test": 10},
}

# Computed from SYSU-MM01's permutation file: how many people of a split pass which cameras.
_LARGE_PEOPLE: Final[dict[Split, dict[tuple[int, ...], int]]] = {
    "train": {
        _ALL: 180,
        (1, 2, 3, 5, 6): 11,
        (3, 4, 5, 6): 5,
        (1, 2, 4, 5, 6): 3,
        (2, 3, 4, 5, 6): 1,
        (3, 4, 5): 92,
        (3, 4): 2,
        (3, 5): 2,
    },
    "val": {(3, 4, 5): 96, (3, 4): 3},
    "test": {
        _ALL: 53,
        (3, 4, 5, 6): 37,
        (1, 2, 4, 5, 6): 2,
        (4, 5, 6): 1,
        (3, 4, 6): 1,
        (1, 2, 3, 5, 6): 1,
        (3, 5, 6): 1,
    },
}
# Images of each camera, from the same file.
_LARGE_IMAGES: Final[dict[Split, dict[int, int]]] = {
    "train": {1: 4721, 2: 5753, 3: 5929, 4: 4821, 5: 4989, 6: 4000},
    "val": {3: 1980, 4: 990, 5: 984},
    "test": {1: 1374, 2: 1565, 3: 1883, 4: 1918, 5: 1918, 6: 1920},
}


def plan_sysu(size: Size, seed: int, knobs: DrawnKnobs) -> Plan:
    """Lay out a data set. `large` has SYSU-MM01's own counts of people and images in every camera.

    People are numbered as there: those whom cameras 1, 2 or 6 see come first, so that these cameras' cells of the
    permutation file are fewer. Validation people pass cameras 3, 4 and 5 only.
    """
    presence = _large_presence() if size == "large" else _small_presence(size, seed, knobs)
    ordered = sorted(presence, key=lambda entry: not {1, 2, 6} & set(entry[1]))
    numbered = [(number, split, cameras) for number, (split, cameras) in enumerate(ordered, start=1)]
    shots: list[Shot] = []
    for split in SPLITS:
        for camera in _ALL:
            members = [number for number, its_split, cameras in numbered if its_split == split and camera in cameras]
            for number, count in zip(members, _spread(size, split, camera, len(members)), strict=True):
                shots.extend(_shot(number, camera, index) for index in range(1, count + 1))
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


def _shot(number: int, camera: int, index: int) -> Shot:
    return Shot(number, camera, camera, index, PurePosixPath(f"cam{camera}/{number:04d}/{index:04d}.jpg"))


def _large_presence() -> list[tuple[Split, tuple[int, ...]]]:
    return [
        (split, cameras)
        for split in ("train", "test", "val")
        for cameras, count in _LARGE_PEOPLE[split].items()
        for _ in range(count)
    ]


def _small_presence(size: Size, seed: int, knobs: DrawnKnobs) -> list[tuple[Split, tuple[int, ...]]]:
    presence: list[tuple[Split, tuple[int, ...]]] = []
    for split in ("train", "test"):
        for index in range(_PEOPLE[size][split]):
            rng = numpy_generator(seed, "drawn", "presence", split, index)
            presence.append((split, stations_passed(rng, knobs.missing_camera, SYSU_STATIONS)))
    presence.extend(("val", _VALIDATION) for _ in range(_PEOPLE[size]["val"]))
    return presence


def _spread(size: Size, split: Split, camera: int, num_people: int) -> list[int]:
    """Images of each person: a constant, or the camera's total spread evenly."""
    if size != "large":
        return [_IMAGES[size][split]] * num_people
    if num_people == 0:
        return []
    least, more = divmod(_LARGE_IMAGES[split][camera], num_people)
    return [least + (position < more) for position in range(num_people)]


def _permutations(plan: Plan, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.object_]]:
    """Six cells of person cells, each empty or 10 x n: a row a trial, a permutation of 1..n."""
    counts: dict[tuple[int, int], int] = {}
    for shot in plan.shots:
        counts[shot.camera, shot.person] = max(counts.get((shot.camera, shot.person), 0), shot.index)
    cells = np.empty((len(_ALL), 1), object)
    for camera in _ALL:
        last = max(person for its_camera, person in counts if its_camera == camera)
        people = np.empty((last, 1), object)
        for person in range(1, last + 1):
            count = counts.get((camera, person), 0)
            rng = numpy_generator(seed, "drawn", "gallery", camera, person)
            rows = [rng.permutation(count) + 1 for _ in range(_NUM_TRIALS)]
            people[person - 1, 0] = np.array(rows, np.uint16) if count else np.empty((0, 0), np.uint16)
        cells[camera - 1, 0] = people
    return cells
