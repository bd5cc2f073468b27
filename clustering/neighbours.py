"""Nearest neighbours among unit rows, exactly or nearly so."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int32

from clustering.approximate_search import search_some_pairs
from clustering.exact_search import search_all_pairs
from clustering.rows import check_unit_rows


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest images of each image, best first.

    Args:
        ranks: Image indices; column 0 is the image itself.
        similarities: Their inner products with the image, in [-1, 1], within 1e-6.
        recall: Share of the exact neighbours that were found, measured on drawn images; None for an exact search.
        search: What searched, for the record.
    """

    ranks: Int32[np.ndarray, "n k"]
    similarities: Float32[np.ndarray, "n k"]
    recall: float | None = None
    search: str = "faiss-cpu exact"


def nearest_neighbours(
    features: Float32[np.ndarray, "n d"], k: int, *, method: Literal["exact", "ivf", "hnsw"] = "exact"
) -> Neighbours:
    """Find the k most similar images of every image, itself first.

    An image that has k or more exact copies is still first in its own list. Equally similar images come by smaller
    index. Similarities within rounding of each other are computed again in float64, so exact lists do not depend on the
    number of threads.

    Args:
        features: Unit rows.
        k: Length of the lists, at least 1, the image itself counted. With fewer than k images all of them are listed.
        method: "exact" compares every pair; "ivf" and "hnsw" find about 0.98 of the neighbours, see
            `search_some_pairs`.

    Returns:
        Lists of min(k, n) images.

    Raises:
        ValueError: k is below 1, the features are not a 2-D float32 array, or a row is not finite or of unit length.

    Cost: n^2 d multiplications, 13 s at 22,258 x 2048 on two cores; 8 bytes a list entry, 40 MB during the search.
    Images that have more than eight others at the same similarity at the end of their list cost a second search. At
    100,000 x 256 drawn features, on two cores with other work, "exact" took 50 s, "hnsw" 95 s, half of it for its
    graph, and "ivf" 280 s: matrix products are hard to beat, but "hnsw" grows hardly faster than n.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    check_unit_rows(features)
    features = np.ascontiguousarray(features)
    k = min(k, len(features))
    match method:
        case "exact":
            return Neighbours(*search_all_pairs(features, k))
        case "ivf" | "hnsw":
            return Neighbours(*search_some_pairs(features, k, method))
