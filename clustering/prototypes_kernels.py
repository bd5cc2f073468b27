"""The compiled loop of the prototypes."""

import numpy as np
from jaxtyping import Float32, Float64, Int

from clustering.parallel import kernel


@kernel
def sum_by_cluster(
    features: Float32[np.ndarray, "n d"], labels: Int[np.ndarray, "n"], sums: Float64[np.ndarray, "c d"]
) -> None:
    """Add each image's features to its cluster's sum; negative labels are left out."""
    for image in range(len(labels)):
        if labels[image] >= 0:
            for place in range(features.shape[1]):
                sums[labels[image], place] += features[image, place]
