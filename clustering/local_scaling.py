"""Similarity of clusters, corrected for clusters that are near to many."""

import numpy as np
from jaxtyping import Float32


def locally_scaled(similarity: Float32[np.ndarray, "c1 c2"], *, neighbours: int = 3) -> Float32[np.ndarray, "c1 c2"]:
    """Similarity of two clusters less what each has to its nearest clusters of the other modality, averaged over both.

    A cluster that is near to all is the nearest of many, and of few of them is it the person. With r(v) the mean of
    the largest `neighbours` similarities of cluster v (all, if there are fewer), the result is s(v, i) - (r(v) + r(i))
    / 2. Transposing the input transposes the result.

    Args:
        similarity: Of visible clusters (rows) to infrared ones (columns). Finite.
        neighbours: At least 1.

    Raises:
        ValueError: `neighbours` is below 1.

    Cost: 1 ms at 616 x 500.

    Source: Conneau et al., ICLR 2018 (CSLS), on words of two languages, with 10 neighbours. Differs: half of it, so
    that differences stay those of similarities; the number is ours.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, not {neighbours}")
    if not similarity.size:
        return similarity.copy()
    rows, columns = _mean_of_largest(similarity, neighbours), _mean_of_largest(similarity.T, neighbours)
    scaled: Float32[np.ndarray, "c1 c2"] = similarity - (rows[:, None] + columns) / 2
    return scaled


def _mean_of_largest(similarity: Float32[np.ndarray, "c1 c2"], number: int) -> Float32[np.ndarray, " c1"]:
    kept = min(number, similarity.shape[1])
    largest: Float32[np.ndarray, " c1"] = np.partition(similarity, -kept, axis=1)[:, -kept:].mean(axis=1)
    return largest
