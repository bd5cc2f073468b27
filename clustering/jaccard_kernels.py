"""Compiled loops of the k-reciprocal Jaccard distance: reciprocal sets, weights, query expansion, min-sum join.

A kernel with `start` and `stop` writes to these rows only. R(i) of the paper is `mutual`, H(c) is `half`. Exponentials
are polynomials of additions and multiplications, and sums are of integers, so that every machine and device gives the
same bits: libraries' exponentials differ in the last bit. `arithmetic_torch` holds the twin.
"""

import math

import numpy as np
from jaxtyping import Float32, Int32, Int64

from clustering.neighbours_kernels import LANES, row_dot
from clustering.parallel import kernel

Rows = Float32[np.ndarray, "n d"]
Longs = Int64[np.ndarray, " n"]
Lists = Int32[np.ndarray, "n k"]  # image indices, a row an image
PerImage = Int32[np.ndarray, " n"]
Starts = Int64[np.ndarray, "n_plus_one"]  # compressed sparse rows or columns: where each begins
Entries = Int32[np.ndarray, "z"]  # their indices or weights
JoinArrays = tuple[Starts, Entries, Starts, Entries, Entries]  # rows: starts, columns; columns: starts, rows, weights

SQUARINGS = 4  # exp(t) = exp(t / 16)^16; t is from -4 to 0
TAYLOR = tuple(1.0 / math.factorial(power) for power in range(12))  # the next term, (1/4)^12 / 12!, is below 2^-52
POWER_SCALE = 1 << 40  # exponentials as integers; thousands of them in a row still fit 53 bits


@kernel
def power(similarity: float) -> int:
    """exp(-(2 - 2 cosine)), rounded to a multiple of 1 / POWER_SCALE and multiplied by it."""
    part = (2.0 * similarity - 2.0) / 16.0
    value = TAYLOR[11]
    for term in range(10, -1, -1):
        value = value * part + TAYLOR[term]
    for _ in range(SQUARINGS):
        value = value * value
    return math.floor(value * POWER_SCALE + 0.5)


@kernel
def fill_weights(powers: Longs, unit: int, row: Entries) -> None:
    """Turn the powers of a row's members into integers that sum to `unit`; the largest takes the rounding."""
    total = 0
    for place in range(len(row)):
        total += powers[place]
    left, largest = unit, 0
    for place in range(len(row)):
        row[place] = max(1, math.floor(powers[place] / total * unit + 0.5))  # 0 would read as not a member
        left -= row[place]
        if row[place] > row[largest]:
            largest = place
    row[largest] += left


@kernel
def mutual_neighbours(ranks: Lists, width: int, members: Lists, counts: PerImage, start: int, stop: int) -> None:
    """List, for each image, those of its first `width` neighbours that have it among their own first `width`."""
    for image in range(start, stop):
        count = 0
        for place in range(width):
            other = ranks[image, place]
            for back in range(width):
                if ranks[other, back] == image:
                    members[image, count] = other
                    count += 1
                    break
        counts[image] = count


@kernel
def _expand(
    image: int,
    mutual: Lists,
    mutual_counts: PerImage,
    half: Lists,
    half_counts: PerImage,
    stamps: Longs,
    expanded: Entries,
) -> int:
    """Write E(image) to `expanded` and return its size. A stamp of 2i+1 marks "in R(i)", 2i+2 "added to E(i)"."""
    in_mutual, added = 2 * image + 1, 2 * image + 2
    size: int = mutual_counts[image]
    for place in range(size):
        expanded[place] = mutual[image, place]
        stamps[mutual[image, place]] = in_mutual
    for place in range(mutual_counts[image]):
        candidate = mutual[image, place]
        shared = 0
        for inner in range(half_counts[candidate]):
            shared += stamps[half[candidate, inner]] == in_mutual
        if 3 * shared > 2 * half_counts[candidate]:  # two thirds, without rounding
            for inner in range(half_counts[candidate]):
                member = half[candidate, inner]
                if stamps[member] < in_mutual:
                    stamps[member] = added
                    expanded[size] = member
                    size += 1
    return size


@kernel
def expansion_sizes(
    mutual: Lists, mutual_counts: PerImage, half: Lists, half_counts: PerImage, sizes: Longs, start: int, stop: int
) -> None:
    """Count the members of each expanded set."""
    stamps = np.zeros(len(mutual), np.int64)
    expanded = np.empty(mutual.shape[1] * (half.shape[1] + 1), np.int32)
    for image in range(start, stop):
        sizes[image] = _expand(image, mutual, mutual_counts, half, half_counts, stamps, expanded)


@kernel
def _sort(values: Entries, count: int) -> None:
    """Insertion sort of the first `count` values: they are few, and the library's sort takes seconds to compile."""
    for place in range(1, count):
        value = values[place]
        hole = place
        while hole > 0 and values[hole - 1] > value:
            values[hole] = values[hole - 1]
            hole -= 1
        values[hole] = value


@kernel
def expansion_members(
    mutual: Lists,
    mutual_counts: PerImage,
    half: Lists,
    half_counts: PerImage,
    starts: Starts,
    columns: Entries,
    start: int,
    stop: int,
) -> None:
    """Fill the members of each expanded set, ascending."""
    stamps = np.zeros(len(mutual), np.int64)
    expanded = np.empty(mutual.shape[1] * (half.shape[1] + 1), np.int32)
    for image in range(start, stop):
        size = _expand(image, mutual, mutual_counts, half, half_counts, stamps, expanded)
        _sort(expanded, size)
        for place in range(size):
            columns[starts[image] + place] = expanded[place]


@kernel
def _twin(starts: Starts, columns: Entries, image: int, member: int) -> int:
    """The entry (member, image) of an earlier member's row, or -1 if it does not exist or the member is later."""
    if member >= image:
        return -1
    entry = first_at_least(columns, starts[member], starts[member + 1], image)
    return entry if entry < starts[member + 1] and columns[entry] == image else -1


@kernel
def member_powers(features: Rows, starts: Starts, columns: Entries, powers: Longs, start: int, stop: int) -> None:
    """Write the exponential of each member's similarity, except where `member_weights` reads it at the twin entry."""
    lanes = np.empty(LANES, np.float64)
    for image in range(start, stop):
        for entry in range(starts[image], starts[image + 1]):
            if _twin(starts, columns, image, columns[entry]) < 0:
                powers[entry] = power(row_dot(features, image, columns[entry], lanes))


@kernel
def member_weights(
    unit: int, starts: Starts, columns: Entries, powers: Longs, weights: Entries, start: int, stop: int
) -> None:
    """Write V: the softmax of -(2 - 2 cosine) over each expanded set, as integers that sum to `unit`."""
    own = np.empty(len(starts), np.int64)
    for image in range(start, stop):
        first = starts[image]
        for entry in range(first, starts[image + 1]):
            twin = _twin(starts, columns, image, columns[entry])
            own[entry - first] = powers[entry if twin < 0 else twin]
        fill_weights(own, unit, weights[first : starts[image + 1]])


@kernel
def sum_sizes(ranks: Lists, k2: int, starts: Starts, columns: Entries, sizes: Longs, start: int, stop: int) -> None:
    """Count the distinct columns in the rows of an image's first k2 neighbours."""
    stamps = np.full(len(ranks), -1, np.int32)
    for image in range(start, stop):
        size = 0
        for place in range(k2):
            other = ranks[image, place]
            for entry in range(starts[other], starts[other + 1]):
                size += stamps[columns[entry]] != image
                stamps[columns[entry]] = image
        sizes[image] = size


@kernel
def sum_weights(
    ranks: Lists,
    k2: int,
    starts: Starts,
    columns: Entries,
    weights: Entries,
    sum_starts: Starts,
    sum_columns: Entries,
    sum_rows: Entries,
    start: int,
    stop: int,
) -> None:
    """Write W: the integer sum of the rows of an image's first k2 neighbours."""
    sums = np.zeros(len(ranks), np.int32)
    for image in range(start, stop):
        members = sum_columns[sum_starts[image] : sum_starts[image + 1]]
        row = sum_rows[sum_starts[image] : sum_starts[image + 1]]
        size = 0
        for place in range(k2):
            other = ranks[image, place]
            for entry in range(starts[other], starts[other + 1]):
                if sums[columns[entry]] == 0:
                    members[size] = columns[entry]
                    size += 1
                sums[columns[entry]] += weights[entry]
        for place in range(size):
            row[place] = sums[members[place]]
            sums[members[place]] = 0


@kernel
def transpose(
    starts: Starts, columns: Entries, weights: Entries, column_starts: Starts, rows: Entries, row_weights: Entries
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
def first_at_least(rows: Entries, first: int, last: int, row: int) -> int:
    """Binary search: the first place in rows[first:last] that holds `row` or more."""
    while first < last:
        middle = (first + last) // 2
        if rows[middle] < row:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def _cursors(column_starts: Starts, rows: Entries, start: int) -> Longs:
    """For each column, the place of the first entry whose row is `start` or later."""
    cursors = np.empty(len(column_starts) - 1, np.int64)
    for column in range(len(cursors)):
        cursors[column] = first_at_least(rows, column_starts[column], column_starts[column + 1], start)
    return cursors


@kernel
def _add_overlaps(image: int, arrays: JoinArrays, cursors: Longs, overlaps: PerImage, touched: PerImage) -> int:
    """Add an image's overlap with every later one to `overlaps`; list the images touched, return their number."""
    starts, columns, column_starts, rows, row_weights = arrays
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
def list_pairs(arrays: JoinArrays, least: int, most: int, start: int, stop: int) -> Int32[np.ndarray, "e 3"]:
    """List (i, j, overlap) for i in start..stop, j > i, where the overlap, summed over columns, is at least `least`.

    Stops after the first image with which there are more than `most` pairs.
    """
    starts, _columns, column_starts, rows, _row_weights = arrays
    overlaps = np.zeros(len(starts) - 1, np.int32)  # at most a row's sum, which fits
    touched = np.empty(len(overlaps), np.int32)
    cursors = _cursors(column_starts, rows, start)
    room = 32 * (stop - start)
    pairs = np.empty((room, 3), np.int32)
    num_pairs = 0
    for image in range(start, stop):
        num_touched = _add_overlaps(image, arrays, cursors, overlaps, touched)
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
def count_pairs(arrays: JoinArrays, least: Int64[np.ndarray, " t"], start: int, stop: int) -> Int64[np.ndarray, " t"]:
    """Count the pairs that `list_pairs` would list for each of several thresholds."""
    starts, _columns, column_starts, rows, _row_weights = arrays
    overlaps = np.zeros(len(starts) - 1, np.int32)
    touched = np.empty(len(overlaps), np.int32)
    cursors = _cursors(column_starts, rows, start)
    counts = np.zeros(len(least), np.int64)
    for image in range(start, stop):
        num_touched = _add_overlaps(image, arrays, cursors, overlaps, touched)
        for place in range(num_touched):
            for threshold in range(len(least)):
                counts[threshold] += overlaps[touched[place]] >= least[threshold]
            overlaps[touched[place]] = 0
    return counts


@kernel
def listed_overlaps(
    images: Int64[np.ndarray, " b"],
    ranks: Lists,
    starts: Starts,
    columns: Entries,
    weights: Entries,
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
