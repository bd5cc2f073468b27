"""The lists that come with SYSU-MM01 in `exp/`: the people of each split, and the orders of the official galleries."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.io
from jaxtyping import Int64, Shaped
from scipy.io.matlab import MatReadError

from pipeline.errors import DataError

LIST_FOLDER = "exp"
PERMUTATION_FILE = "rand_perm_cam.mat"

Permutations = Mapping[tuple[int, int], Int64[np.ndarray, "_ _"]]
"""By (camera, person): ten orders of the numbers 1..n of the images in that folder, one a row."""

_PERMUTATIONS_HINT = (
    f"the image archive does not hold it: put evaluation/data_split/{PERMUTATION_FILE} of wuancong/SYSU-MM01 "
    f"(SHA-256 90402382dd587e05...) into {LIST_FOLDER}/; the draw `agw` works without it"
)


def read_person_list(folder: Path, split: str) -> tuple[int, ...] | None:
    """The people of a split from `{split}_id.txt`, `{split}_id.mat`, or both.

    Args:
        folder: Where the lists are: `exp/` of the data set.
        split: `train`, `val` or `test`.

    Returns:
        Person numbers, ascending, each once; None when there is neither file.

    Raises:
        DataError: A file is not such a list, or the two contradict each other.
    """
    text_path, mat_path = folder / f"{split}_id.txt", folder / f"{split}_id.mat"
    text = _read_text_list(text_path) if text_path.is_file() else None
    mat = _read_mat_list(mat_path) if mat_path.is_file() else None
    if text is not None and mat is not None and text != mat:
        differing = ", ".join(str(person) for person in sorted(set(text) ^ set(mat))[:5])
        raise DataError(
            f"{text_path} names {len(text)} people and {mat_path.name} {len(mat)}; first in one alone: {differing}",
            hint="both come with the data set and are equal there: restore them, or remove the one you changed",
        )
    return mat if text is None else text


def read_permutations(path: Path) -> Permutations:
    """The published permutations of image numbers that the `official` gallery draw follows.

    A camera's list may be shorter than the largest person number (333 against 533 entries): people beyond its end, like
    those with an empty entry, have no images there and are left out. Use `permutation_of` to look one up, for it
    compares the length with the files on disk.

    Args:
        path: The file: `exp/rand_perm_cam.mat` of the data set.

    Returns:
        By (camera, person), int64 [10, n] with 1-based image numbers; row = trial.

    Raises:
        DataError: The file is missing, unreadable, or an entry does not hold permutations of 1..n.

    Cost:
        About 50 ms.

    Source: wuancong/SYSU-MM01, evaluation/data_split/rand_perm_cam.mat.
    """
    if not path.is_file():
        raise DataError(f"there is no {path}", hint=_PERMUTATIONS_HINT)
    permutations: dict[tuple[int, int], Int64[np.ndarray, "_ _"]] = {}
    for camera, cameras_cell in enumerate(_read_mat(path, "rand_perm_cam").ravel(), start=1):
        for person, cell in enumerate(np.asarray(cameras_cell).ravel(), start=1):
            orders = np.atleast_2d(np.asarray(cell, dtype=np.int64))
            if orders.size == 0:
                continue
            num_images = orders.shape[1]
            if np.any(np.sort(orders, axis=1) != np.arange(1, num_images + 1)):
                raise DataError(
                    f"{path}: camera {camera}, person {person} is no permutation of 1..{num_images}",
                    hint=_PERMUTATIONS_HINT,
                )
            permutations[camera, person] = orders
    return permutations


def permutation_of(
    permutations: Permutations, camera: int, person: int, num_images: int
) -> Int64[np.ndarray, "trials n"]:
    """The ten orders of one folder's images.

    Args:
        permutations: What `read_permutations` returned.
        camera: 1 to 6.
        person: The person's number.
        num_images: How many images the folder holds.

    Returns:
        1-based image numbers, row = trial.

    Raises:
        DataError: The permutations are of more or fewer images, or there are none.
    """
    orders = permutations.get((camera, person))
    published = 0 if orders is None else orders.shape[1]
    if orders is None or published != num_images:
        raise DataError(
            f"cam{camera}/{person:04d} holds {num_images} images, {PERMUTATION_FILE} says {published}",
            hint="the `official` draw needs the complete data set: unpack it again, or use the draw `agw`",
        )
    return orders


def _read_text_list(path: Path) -> tuple[int, ...]:
    tokens = [token for token in re.split(r"[,\s]+", path.read_text(encoding="utf-8", errors="replace")) if token]
    for token in tokens:
        if not re.fullmatch(r"[0-9]+", token):
            raise DataError(
                f"{path}: {token[:20]!r} is not a person number",
                hint="the file is one line of numbers, separated by commas",
            )
    return _distinct(path, [int(token) for token in tokens])


def _read_mat_list(path: Path) -> tuple[int, ...]:
    ids = _read_mat(path, "id")
    if not np.issubdtype(ids.dtype, np.number):
        raise DataError(f"{path}: `id` holds no numbers", hint="restore the file from the data set")
    return _distinct(path, [int(person) for person in ids.ravel()])


def _distinct(path: Path, people: list[int]) -> tuple[int, ...]:
    if not people:
        raise DataError(f"{path} names nobody", hint="restore the file from the data set")
    return tuple(sorted(set(people)))


def _read_mat(path: Path, variable: str) -> Shaped[np.ndarray, "..."]:
    try:
        variables = scipy.io.loadmat(path, variable_names=[variable])
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise DataError(
            f"{path} is not a readable MATLAB 5 file: {error}", hint="restore the file from its source"
        ) from error
    if variable not in variables:
        raise DataError(f"{path} holds no variable `{variable}`", hint="restore the file from its source")
    return np.asarray(variables[variable])
