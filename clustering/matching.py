"""Matching of visible clusters to infrared clusters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

from clustering.rows import check_unit_rows

DENSE_LIMIT = 5_000  # clusters; at 20,000 x 20,000 the full assignment takes 12 s and 6 GB
CANDIDATES = 32  # candidate partners of a cluster in the sparse assignment

Assign = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From similarities (visible clusters by infrared ones) to the clusters of each pair, each cluster at most once."""


@dataclass(frozen=True, slots=True)
class Matching:
    """One-to-one pairs of a visible and an infrared cluster, ascending by visible, and their prototypes' similarity."""

    visible: Int64[np.ndarray, " m"]
    infrared: Int64[np.ndarray, " m"]
    similarity: Float32[np.ndarray, " m"]

    def __post_init__(self) -> None:
        for side in (self.visible, self.infrared):
            if len(np.unique(side)) < len(side):
                raise ValueError("a cluster is matched twice")


def match_clusters(
    visible: Float32[np.ndarray, "c1 d"],
    infrared: Float32[np.ndarray, "c2 d"],
    *,
    method: Literal["hungarian", "mutual"] | Assign = "hungarian",
    floor: float | None = None,
) -> Matching:
    """Match visible with infrared clusters by their prototypes (unit rows).

    With "hungarian", which maximises the sum of similarities, every cluster of the modality with fewer clusters gets a
    partner; "mutual" keeps mutual nearest prototypes only. Exchanging the modalities exchanges the fields. `method` may
    also be a function of the similarities. `floor` (a similarity) removes pairs after the assignment.

    Raises:
        ValueError: A row is not finite or not of unit length, or a cluster is in two pairs.

    Cost: 20 ms at 616 x 500; grows with the third power. Above 5,000 clusters, see `assign_sparsely`.

    Source: Kuhn, 1955, by the solver of scipy.
    """
    check_unit_rows(visible)
    check_unit_rows(infrared)
    match method:
        case "hungarian":
            if max(len(visible), len(infrared)) > DENSE_LIMIT:
                rows, columns = assign_sparsely(visible, infrared)
            else:
                rows, columns = best_assignment(visible @ infrared.T)
        case "mutual":
            rows, columns = mutual_nearest(visible @ infrared.T)
        case assign:
            rows, columns = assign(visible @ infrared.T)
            ascending = np.argsort(rows)
            rows, columns = rows[ascending], columns[ascending]
    similarity = np.einsum("md,md->m", visible[rows], infrared[columns])
    kept = similarity >= (-np.inf if floor is None else floor)
    return Matching(rows[kept], columns[kept], similarity[kept])


def best_assignment(
    similarity: Float[np.ndarray, "c1 c2"],
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The one-to-one pairs with the largest sum of similarities: rows, ascending, and columns; min(c1, c2) pairs."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return rows, columns


def mutual_nearest(
    similarity: Float[np.ndarray, "c1 c2"],
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Mutual nearest clusters (the first in a tie): visible clusters, ascending, and their partners."""
    if not similarity.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    nearest = similarity.argmax(axis=1)
    rows = np.flatnonzero(similarity.argmax(axis=0)[nearest] == np.arange(len(similarity)))
    return rows, nearest[rows]


def assign_sparsely(
    visible: Float32[np.ndarray, "c1 d"], infrared: Float32[np.ndarray, "c2 d"], *, candidates: int = CANDIDATES
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Assign clusters among candidate pairs: each cluster's `candidates` most similar clusters of the other modality.

    If these pairs allow no full assignment, their number is doubled, up to all. The sum of similarities is the largest
    among the candidates, and equals the full assignment's unless many clusters share the same few candidates.

    Returns:
        Visible clusters, ascending, and their partners; min(c1, c2) pairs.

    Cost: c1 c2 d multiplications; 24 bytes a candidate.
    """
    fewer = min(len(visible), len(infrared))
    if not fewer:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    costs = _proposed_costs(visible, infrared, candidates)
    while np.count_nonzero(maximum_bipartite_matching(costs) >= 0) < fewer:
        candidates *= 2
        costs = _proposed_costs(visible, infrared, candidates)
    rows, columns = min_weight_full_bipartite_matching(costs)
    return rows.astype(np.int64), columns.astype(np.int64)


def _proposed_costs(
    visible: Float32[np.ndarray, "c1 d"], infrared: Float32[np.ndarray, "c2 d"], candidates: int
) -> csr_array:
    """Costs 2 - similarity of the candidate pairs: above 0, because the solver reads 0 as "no pair"."""
    import faiss  # here, as in `neighbours`

    inner = faiss.METRIC_INNER_PRODUCT
    forth, to_infrared = faiss.knn(visible, infrared, min(candidates, len(infrared)), metric=inner)
    back, to_visible = faiss.knn(infrared, visible, min(candidates, len(visible)), metric=inner)
    rows = np.concatenate([np.repeat(np.arange(len(visible)), forth.shape[1]), to_visible.ravel()])
    columns = np.concatenate([to_infrared.ravel(), np.repeat(np.arange(len(infrared)), back.shape[1])])
    costs = 2.0 - np.concatenate([forth.ravel(), back.ravel()]).astype(np.float64)
    _, first = np.unique(rows * len(infrared) + columns, return_index=True)  # a pair from both sides counts once
    # 32-bit indices: with wider ones, scipy 1.17 fails if there are more rows than columns.
    places = rows[first].astype(np.int32), columns[first].astype(np.int32)
    return csr_array((costs[first], places), shape=(len(visible), len(infrared)))
