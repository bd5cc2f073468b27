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
def first_at_least(rows: Int32[np.ndarray, "z"], first: int, last: int, row: int) -> int:
    """Binary search: the first place in rows[first:last] that holds `row` or more."""
    while first < last:
        middle = (first + last) // 2
        if rows[middle] < row:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def _cursors(
    column_starts: Int64[np.ndarray, "n_plus_one"], rows: Int32[np.ndarray, "z"], start: int
) -> Int64[np.ndarray, "n"]:
    """Where, in each column, the entry of row `start` or of the next one after it is."""
    cursors = np.empty(len(column_starts) - 1, np.int64)
    for column in range(len(cursors)):
        cursors[column] = first_at_least(rows, column_starts[column], column_starts[column + 1], start)
    return cursors


@kernel
def _add_overlaps(
    image: int,
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    column_starts: Int64[np.ndarray, "n_plus_one"],
    rows: Int32[np.ndarray, "z"],
    row_weights: Int32[np.ndarray, "z"],
    cursors: Int64[np.ndarray, "n"],
    overlaps: Int32[np.ndarray, "n"],
    touched: Int32[np.ndarray, "n"],
) -> int:
    """Add up the overlap of an image with every later one, list those it shares anything with, and count them."""
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
    return num_touched


@kernel
def list_pairs(
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    column_starts: Int64[np.ndarray, "n_plus_one"],
    rows: Int32[np.ndarray, "z"],
    row_weights: Int32[np.ndarray, "z"],
    least: int,
    most: int,
    start: int,
    stop: int,
) -> Int32[np.ndarray, "e 3"]:
    """List (i, j, overlap) for i in start..stop, j > i, where the overlap, summed over columns, is at least `least`.

    After the first image with which they are more than `most`, the rest is left out.
    """
    overlaps = np.zeros(len(starts) - 1, np.int32)  # at most a row's sum, which fits
    touched = np.empty(len(overlaps), np.int32)
    cursors = _cursors(column_starts, rows, start)
    room = 32 * (stop - start)
    pairs = np.empty((room, 3), np.int32)
    num_pairs = 0
    for image in range(start, stop):
        num_touched = _add_overlaps(
            image, starts, columns, column_starts, rows, row_weights, cursors, overlaps, touched
        )
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
        if num_pairs > most:
            break
    return pairs[:num_pairs].copy()


@kernel
def count_pairs(
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    column_starts: Int64[np.ndarray, "n_plus_one"],
    rows: Int32[np.ndarray, "z"],
    row_weights: Int32[np.ndarray, "z"],
    least: Int64[np.ndarray, "t"],
    start: int,
    stop: int,
) -> Int64[np.ndarray, "t"]:
    """Count the pairs that `list_pairs` would list for each of several thresholds."""
    overlaps = np.zeros(len(starts) - 1, np.int32)
    touched = np.empty(len(overlaps), np.int32)
    cursors = _cursors(column_starts, rows, start)
    counts = np.zeros(len(least), np.int64)
    for image in range(start, stop):
        num_touched = _add_overlaps(
            image, starts, columns, column_starts, rows, row_weights, cursors, overlaps, touched
        )
        for place in range(num_touched):
            for threshold in range(len(least)):
                counts[threshold] += overlaps[touched[place]] >= least[threshold]
            overlaps[touched[place]] = 0
    return counts


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
