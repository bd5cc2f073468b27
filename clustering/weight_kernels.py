"""The softmax of the neighbourhood weights, from operations that every machine and device rounds alike.

Libraries' exponential functions differ in the last bit, and sums of floats depend on their order. So the exponential is
a polynomial of additions and multiplications alone, and what is summed is integers. `arithmetic_torch` holds the twin.
"""

import math

import numpy as np
from jaxtyping import Int32, Int64

from clustering.parallel import kernel

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
def fill_weights(powers: Int64[np.ndarray, "bound"], unit: int, row: Int32[np.ndarray, "z"]) -> None:
    """Turn the powers of a row's members into integers that sum to `unit`.

    What rounding leaves over goes to the largest, the first in a tie.
    """
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
