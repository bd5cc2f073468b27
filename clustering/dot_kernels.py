"""The inner product that decides ties and weights: the same bits on every machine and device.

Products of two float32 numbers are exact in float64, so only the order of the additions matters, and that is part of
the definition here: place p belongs to lane p mod LANES, each lane is summed from the first place to the last, then
the upper half of the lanes is added to the lower half until one is left. `arithmetic_torch` does so with tensors.
"""

import numpy as np
from jaxtyping import Float32, Float64

from clustering.parallel import kernel

LANES = 128  # wide enough for vector registers here and for few steps on a GPU


@kernel
def row_dot(rows: Float32[np.ndarray, "n d"], first: int, second: int, lanes: Float64[np.ndarray, "lanes"]) -> float:
    """Inner product of two rows in float64: symmetric, and equal for equal rows. `lanes` is scratch, LANES long."""
    width = rows.shape[1]
    for lane in range(LANES):
        lanes[lane] = 0.0
    whole = width - width % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(rows[first, start + lane]) * np.float64(rows[second, start + lane])
    for lane in range(width - whole):
        lanes[lane] += np.float64(rows[first, whole + lane]) * np.float64(rows[second, whole + lane])
    half = LANES
    while half > 1:
        half //= 2
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
    total: float = lanes[0]
    return total
