"""Compiled loops of the k-reciprocal Jaccard distance: reciprocal sets, weights, query expansion.

Every kernel works on rows start..stop and writes to no others. R(i) of the definition is `mutual`, H(c) is `half`.
"""

import numpy as np
from jaxtyping import Float32, Int32, Int64

from clustering.dot_kernels import LANES, row_dot
from clustering.join_kernels import first_at_least
from clustering.parallel import kernel
from clustering.weight_kernels import fill_weights, power


@kernel
def mutual_neighbours(
    ranks: Int32[np.ndarray, "n k"],
    width: int,
    members: Int32[np.ndarray, "n width"],
    counts: Int32[np.ndarray, "n"],
    start: int,
    stop: int,
) -> None:
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
    mutual: Int32[np.ndarray, "n width"],
    mutual_counts: Int32[np.ndarray, "n"],
    half: Int32[np.ndarray, "n half_width"],
    half_counts: Int32[np.ndarray, "n"],
    stamps: Int64[np.ndarray, "n"],
    expanded: Int32[np.ndarray, "bound"],
) -> int:
    """Write E(image) to `expanded` and return its size. A stamp of 2i+1 says "in R(i)", 2i+2 "added to E(i)"."""
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
    mutual: Int32[np.ndarray, "n width"],
    mutual_counts: Int32[np.ndarray, "n"],
    half: Int32[np.ndarray, "n half_width"],
    half_counts: Int32[np.ndarray, "n"],
    sizes: Int64[np.ndarray, "n"],
    start: int,
    stop: int,
) -> None:
    """Count the members of each expanded set."""
    stamps = np.zeros(len(mutual), np.int64)
    expanded = np.empty(mutual.shape[1] * (half.shape[1] + 1), np.int32)
    for image in range(start, stop):
        sizes[image] = _expand(image, mutual, mutual_counts, half, half_counts, stamps, expanded)


@kernel
def _sort(values: Int32[np.ndarray, "bound"], count: int) -> None:
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
    mutual: Int32[np.ndarray, "n width"],
    mutual_counts: Int32[np.ndarray, "n"],
    half: Int32[np.ndarray, "n half_width"],
    half_counts: Int32[np.ndarray, "n"],
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
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
def _twin(starts: Int64[np.ndarray, "n_plus_one"], columns: Int32[np.ndarray, "z"], image: int, member: int) -> int:
    """The entry of an earlier member's row that holds the image, or -1 where there is none or the member is later."""
    if member >= image:
        return -1
    entry = first_at_least(columns, starts[member], starts[member + 1], image)
    return entry if entry < starts[member + 1] and columns[entry] == image else -1


@kernel
def member_powers(
    features: Float32[np.ndarray, "n d"],
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    powers: Int64[np.ndarray, "z"],
    start: int,
    stop: int,
) -> None:
    """Fill the exponential of each member's similarity, but for those that `member_weights` finds at their twin."""
    lanes = np.empty(LANES, np.float64)
    for image in range(start, stop):
        for entry in range(starts[image], starts[image + 1]):
            if _twin(starts, columns, image, columns[entry]) < 0:
                powers[entry] = power(row_dot(features, image, columns[entry], lanes))


@kernel
def member_weights(
    unit: int,
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    powers: Int64[np.ndarray, "z"],
    weights: Int32[np.ndarray, "z"],
    start: int,
    stop: int,
) -> None:
    """Fill V: the softmax of -(2 - 2 cosine) over each expanded set, as integers that sum to `unit`."""
    own = np.empty(len(starts), np.int64)
    for image in range(start, stop):
        first = starts[image]
        for entry in range(first, starts[image + 1]):
            twin = _twin(starts, columns, image, columns[entry])
            own[entry - first] = powers[entry if twin < 0 else twin]
        fill_weights(own, unit, weights[first : starts[image + 1]])


@kernel
def sum_sizes(
    ranks: Int32[np.ndarray, "n k"],
    k2: int,
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    sizes: Int64[np.ndarray, "n"],
    start: int,
    stop: int,
) -> None:
    """Count the columns that the rows of an image's first k2 neighbours have together."""
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
    ranks: Int32[np.ndarray, "n k"],
    k2: int,
    starts: Int64[np.ndarray, "n_plus_one"],
    columns: Int32[np.ndarray, "z"],
    weights: Int32[np.ndarray, "z"],
    sum_starts: Int64[np.ndarray, "n_plus_one"],
    sum_columns: Int32[np.ndarray, "y"],
    sum_rows: Int32[np.ndarray, "y"],
    start: int,
    stop: int,
) -> None:
    """Fill W: the rows of an image's first k2 neighbours together, in integers, whose order does not matter."""
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
