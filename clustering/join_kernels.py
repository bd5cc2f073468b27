"""Compiled loops of the min-sum join: which pairs of weight rows overlap enough."""

import numpy as np
from jaxtyping import Int32, Int64

from clustering.parallel import kernel


@kernel
def transpose(
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    weights: Int32[np.ndarray, "z"],
    column_starts: Int64[np.ndarray, "n_plus_one"],
    rows: Int32[np.ndarray, "z"],
    row_weights: Int32[np.ndarray, "z"],
) -> None:
    """Turn rows of columns into columns of rows; within a column the rows ascend."""
    num_images = len(starts) - 1
    for entry in range(len(columns)):
        column_starts[columns[entry] + 1] += 1
    for column in range(num_images):
        column_starts[column + 1] += column_starts[column]
    ends = column_starts[:-1].copy()
    for image in range(num_images):
        for entry in range(starts[image], starts[image + 1]):
            rows[ends[columns[entry]]] = image
            row_weights[ends[columns[entry]]] = weights[entry]
            ends[columns[entry]] += 1


@kernel
def _first_at_least(rows: Int32[np.ndarray, "z"], first: int, last: int, row: int) -> int:
    """Binary search: the first place in rows[first:last] that holds `row` or more."""
    while first < last:
        middle = (first + last) // 2
        if rows[middle] < row:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def join(
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    column_starts: Int64[np.ndarray, "n_plus_one"],
    rows: Int32[np.ndarray, "z"],
    row_weights: Int32[np.ndarray, "z"],
    least: int,
    start: int,
    stop: int,
) -> Int32[np.ndarray, "e 3"]:
    """List (i, j, overlap) for i in start..stop, j > i, where the overlap, summed over columns, is at least `least`."""
    num_images = len(starts) - 1
    overlaps = np.zeros(num_images, np.int32)  # at most a row's sum, which fits
    touched = np.empty(num_images, np.int32)
    cursors = np.empty(num_images, np.int64)  # where, in each column, the row at hand is
    for column in range(num_images):
        cursors[column] = _first_at_least(rows, column_starts[column], column_starts[column + 1], start)
    room = 32 * (stop - start)
    pairs = np.empty((room, 3), np.int32)
    num_pairs = 0
    for image in range(start, stop):
        num_touched = 0
        for place in range(starts[image], starts[image + 1]):
            column = columns[place]
            own = row_weights[cursors[column]]
            cursors[column] += 1
            for entry in range(cursors[column], column_starts[column + 1]):
                other = rows[entry]
                if overlaps[other] == 0:
                    touched[num_touched] = other
                    num_touched += 1
                overlaps[other] += min(own, row_weights[entry])
        if num_pairs + num_touched > room:
            room = 2 * (num_pairs + num_touched)
            longer = np.empty((room, 3), np.int32)
            for pair in range(num_pairs):  # element by element: assigning slices takes seconds to compile
                for field in range(3):
                    longer[pair, field] = pairs[pair, field]
            pairs = longer
        for place in range(num_touched):
            other = touched[place]
            if overlaps[other] >= least:
                pairs[num_pairs, 0], pairs[num_pairs, 1], pairs[num_pairs, 2] = image, other, overlaps[other]
                num_pairs += 1
            overlaps[other] = 0
    return pairs[:num_pairs].copy()


@kernel
def listed_overlaps(
    images: Int64[np.ndarray, "b"],
    ranks: Int32[np.ndarray, "n k"],
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    weights: Int32[np.ndarray, "z"],
    overlaps: Int64[np.ndarray, "b k"],
) -> None:
    """Fill the overlap of each of some images with every image of its list."""
    own = np.zeros(len(ranks), np.int32)
    for row in range(len(images)):
        image = images[row]
        for entry in range(starts[image], starts[image + 1]):
            own[columns[entry]] = weights[entry]
        for place in range(ranks.shape[1]):
            other = ranks[image, place]
            total = 0
            for entry in range(starts[other], starts[other + 1]):
                total += min(own[columns[entry]], weights[entry])
            overlaps[row, place] = total
        for entry in range(starts[image], starts[image + 1]):
            own[columns[entry]] = 0
