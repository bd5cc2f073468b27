"""The one check of features: rows of unit length."""

import numpy as np
from jaxtyping import Float32

UNIT_TOLERANCE = 1e-3  # bfloat16 rows keep three decimals; features that were never normalised are off by far more


def check_unit_rows(rows: Float32[np.ndarray, "n d"]) -> None:
    """Refuse rows that are not finite or not of unit length.

    Everything in this package reads an inner product as a cosine: a long row would be everybody's neighbour, silently.

    Args:
        rows: One feature vector a row.

    Raises:
        ValueError: A row is not finite or not of unit length; the message names the first one and counts them.

    Cost: One pass over the rows, no copy.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))  # negated, so that NaN counts as bad
    if not len(bad):
        return
    first = int(bad[0])
    problem = f"has length {lengths[first]:.4g}, not 1" if np.isfinite(lengths[first]) else "is not finite"
    raise ValueError(f"row {first} {problem} ({len(bad):,} of {len(rows):,} rows are bad)")
