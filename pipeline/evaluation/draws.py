"""Which images of each person and camera a gallery shows: the two draws that published numbers rest on."""

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
    """Gather the gallery rows of each person and camera.

    Args:
        samples: The images of one modality. Paths are compared by code point; without paths, rows keep their order.
        cameras: The cameras to keep; None for all.

    Returns:
        Rows by (person, camera), sorted by path; people ascending, inside cameras ascending.
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
    """Draw images of each person and camera from a generator seeded with the trial's number.

    The draws follow the order of the folders, so the gallery depends on which folders there are.

    Args:
        folders: As `group_images` orders them.
        trial: The seed, from 0.
        shots: Images of each person and camera; all where there are fewer.

    Returns:
        Rows in the order of the folders, those of one folder in the order drawn.

    Source:
        mangye16/Cross-Modal-Re-ID-baseline, data_manager.py, for one shot. Differs: a generator of its own draws the
        same images as that code draws after seeding the global one, which stays untouched here; several shots, which
        that code does not have, are one sample a folder from the same generator.
    """
    generator = random.Random(trial)  # noqa: S311  the published draw is defined by this generator
    if shots == 1:
        return np.array([generator.choice(rows) for rows in folders.values()], dtype=np.int64)
    drawn = [generator.sample(list(rows), min(shots, len(rows))) for rows in folders.values()]
    return np.array([row for rows in drawn for row in rows], dtype=np.int64)


def draw_official(
    folders: Folders, paths: Sequence[str] | None, permutations: Permutations, trial: int, shots: int = 1
) -> Int64[np.ndarray, "g"]:
    """Take the first images of each person and camera in the order that SYSU-MM01's authors published.

    Args:
        folders: As `group_images` orders them.
        paths: The path of every row, whose file names are the image numbers; None numbers the rows of a folder from 1.
        permutations: The published orders.
        trial: Which order, from 0.
        shots: Images of each person and camera; all where there are fewer.

    Returns:
        Rows: cameras ascending, inside people ascending, inside in the published order.

    Raises:
        ConfigError: There are fewer published orders than trials.
        DataError: The orders belong to other images: a folder holds another number of images, or other numbers.

    Source:
        wuancong/SYSU-MM01, evaluation.
    """
    drawn: list[int] = []
    for person, camera in sorted(folders, key=lambda folder: (folder[1], folder[0])):
        rows = folders[person, camera]
        orders = permutation_of(permutations, camera, person, len(rows))
        if trial >= len(orders):
            raise ConfigError(
                f"trial {trial} of the draw `official`: {PERMUTATION_FILE} holds {len(orders)} trials",
                hint=f"ask for at most {len(orders)} trials",
            )
        row_of_number = _numbered(rows, paths)
        if row_of_number.keys() != set(range(1, len(rows) + 1)):
            raise DataError(
                f"camera {camera}, person {person}: the {len(rows)} images are not numbered 1 to {len(rows)}",
                hint="the draw `official` goes by the numbers of SYSU-MM01's own files; the draw `agw` needs none",
            )
        drawn += [row_of_number[number] for number in orders[trial, :shots].tolist()]
    return np.array(drawn, dtype=np.int64)


def _numbered(rows: Sequence[int], paths: Sequence[str] | None) -> dict[int | None, int]:
    if paths is None:
        return dict(enumerate(rows, start=1))
    return {image_number(paths[row].rpartition("/")[2]): row for row in rows}
