"""The inner product that decides ties and weights."""

import numpy as np
from jaxtyping import Float32

from clustering.parallel import summing_kernel


@summing_kernel
def row_dot(rows: Float32[np.ndarray, "n d"], first: int, second: int) -> float:
    """Inner product of two rows, summed in float64 in a fixed order: symmetric, and equal for equal rows."""
    total = 0.0
    for place in range(rows.shape[1]):
        total += np.float64(rows[first, place]) * np.float64(rows[second, place])
    return total
