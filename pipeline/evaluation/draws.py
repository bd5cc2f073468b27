"""Gallery sampling of the two protocols that published numbers are based on, `agw` and `official`."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from pipeline.data.datasets.sysu import PERMUTATION_FILE, Permutations, image_number, permutation_of
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.protocol import Samples

Folders = Mapping[tuple[int, int], Sequence[int]]
"""The rows of each (person, camera), sorted by path; people ascending, inside cameras ascending."""


def group_images(samples: Samples, cameras: Sequence[int] | None = None) -> dict[tuple[int, int], list[int]]:
    """The gallery rows of each person and camera, of all cameras or the given ones; see `Folders`.

    Paths are compared by code point; without paths, rows keep their order.
    """
    rows = samples.gallery_rows
    if cameras is not None:
        rows = rows[np.isin(samples.cameras[rows], cameras)]
    people, taken_by, paths = samples.people, samples.cameras, samples.paths
    groups: dict[tuple[int, int], list[int]] = {}
    for row in sorted(
        rows.tolist(), key=lambda row: (people[row], taken_by[row], row if paths is None else paths[row])
    ):
        groups.setdefault((int(people[row]), int(taken_by[row])), []).append(row)
    return groups


def draw_agw(folders: Folders, trial: int, shots: int = 1) -> Int64[np.ndarray, "g"]:
    """Sample images of each person and camera with a generator seeded with the trial's number.

    Sampling follows the order of the folders, so the gallery depends on which folders exist. A folder with fewer
    images than `shots` is used completely.

    Source: mangye16/Cross-Modal-Re-ID-baseline, data_manager.py, for one shot. Differs: a generator of its own gives
    the same images as that code, which seeds the global one; several shots, which that code lacks, are one
    `Random.sample` a folder from the same generator.
    """
    generator = random.Random(trial)  # noqa: S311  the published draw is defined by this generator
    if shots == 1:
        return np.array([generator.choice(rows) for rows in folders.values()], dtype=np.int64)
    sampled = [generator.sample(list(rows), min(shots, len(rows))) for rows in folders.values()]
    return np.array([row for rows in sampled for row in rows], dtype=np.int64)


def draw_official(
    folders: Folders, paths: Sequence[str] | None, permutations: Permutations, trial: int, shots: int = 1
) -> Int64[np.ndarray, "g"]:
    """The first images of each person and camera in the order that SYSU-MM01's authors published.

    `paths` are those of all rows: file names are the image numbers; None numbers the rows of a folder from 1.

    Returns:
        Rows: cameras ascending, inside people ascending, inside in the published order.

    Raises:
        ConfigError: There are fewer published orders than trials.
        DataError: The orders belong to other images: another number of images in a folder, or other numbers.

    Source: wuancong/SYSU-MM01, evaluation.
    """
    chosen: list[int] = []
    for person, camera in sorted(folders, key=lambda folder: (folder[1], folder[0])):
        rows = folders[person, camera]
        orders = permutation_of(permutations, camera, person, len(rows))
        if trial >= len(orders):
            raise ConfigError(
                f"trial {trial} of the draw `official`: {PERMUTATION_FILE} holds {len(orders)} trials",
                hint=f"set at most {len(orders)} trials",
            )
        row_of_number = _numbered(rows, paths)
        if row_of_number.keys() != set(range(1, len(rows) + 1)):
            raise DataError(
                f"camera {camera}, person {person}: the {len(rows)} images are not numbered 1 to {len(rows)}",
                hint="the draw `official` uses the numbers of SYSU-MM01's own files; the draw `agw` needs none",
            )
        chosen += [row_of_number[number] for number in orders[trial, :shots].tolist()]
    return np.array(chosen, dtype=np.int64)


def _numbered(rows: Sequence[int], paths: Sequence[str] | None) -> dict[int | None, int]:
    if paths is None:
        return dict(enumerate(rows, start=1))
    return {image_number(paths[row].rpartition("/")[2]): row for row in rows}
