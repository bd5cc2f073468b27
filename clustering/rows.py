"""Checks of feature matrices."""

from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

UNIT_TOLERANCE = 1e-3  # bfloat16 rows keep three decimals; features without normalisation differ by far more


def check_matrix(features: NDArray[Any]) -> None:
    """Raise `ValueError` unless the array is two-dimensional float32."""
    if features.ndim != 2 or features.dtype != np.float32:
        raise ValueError(f"features must be a 2-D array of float32, not {features.ndim}-D of {features.dtype}")


def check_unit_rows(rows: Float32[np.ndarray, "n d"]) -> None:
    """Raise `ValueError` unless the array is 2-D float32 with finite rows of unit length.

    This package reads every inner product as a cosine: a long row would silently become every row's neighbour. The
    message names the first bad row and counts them. Cost: One pass over the rows, no copy.
    """
    check_matrix(rows)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))  # negated, so that NaN counts as bad
    if not len(bad):
        return
    first = int(bad[0])
    problem = f"has length {lengths[first]:.4g}, not 1" if np.isfinite(lengths[first]) else "is not finite"
    raise ValueError(f"row {first} {problem} ({len(bad):,} of {len(rows):,} rows are bad)")
