"""Compiled loops of re-ranking."""

import math

import numpy as np
from jaxtyping import Float32, Int32, Int64

from clustering.parallel import kernel


@kernel
def scale_weights(
    starts: Int64[np.ndarray, " n_plus_one"],
    weights: Int32[np.ndarray, " z"],
    divisors: Float32[np.ndarray, " n"],
    unit: int,
    scaled: Int32[np.ndarray, " z"],
    start: int,
    stop: int,
) -> None:
    """Recompute each row's weights from distances divided by the row's divisor; integers of sum `unit`.

    A row is a softmax of negative distances, so that of the divided ones is its power 1 / divisor, normalised.
    """
    for image in range(start, stop):
        row, result = weights[starts[image] : starts[image + 1]], scaled[starts[image] : starts[image + 1]]
        exponent = 1.0 / divisors[image]
        power_sum = 0.0
        for place in range(len(row)):
            power_sum += math.pow(row[place], exponent)
        rest = unit
        largest = 0
        for place in range(len(row)):
            share = math.pow(row[place], exponent) / power_sum
            result[place] = max(1, math.floor(share * unit + 0.5))  # 0 would read as not a member
            rest -= result[place]
            if result[place] > result[largest]:
                largest = place
        result[largest] += rest  # what rounding left over


@kernel
def gallery_overlaps(
    starts: Int64[np.ndarray, " n_plus_one"],
    columns: Int32[np.ndarray, " z"],
    weights: Int32[np.ndarray, " z"],
    column_starts: Int64[np.ndarray, " n_plus_one"],
    holders: Int32[np.ndarray, " y"],
    holder_weights: Int32[np.ndarray, " y"],
    first_gallery_image: int,
    overlaps: Int64[np.ndarray, "b g"],
    start: int,
    stop: int,
) -> None:
    """Add, for queries start..stop, the smaller weights of every column that a gallery image has too.

    `overlaps` has one row per query, zero at first. Sums are of integers: their order does not matter.
    """
    for query in range(start, stop):
        for place in range(starts[query], starts[query + 1]):
            column, own = columns[place], weights[place]
            for entry in range(column_starts[column], column_starts[column + 1]):
                overlaps[query - start, holders[entry] - first_gallery_image] += min(own, holder_weights[entry])
