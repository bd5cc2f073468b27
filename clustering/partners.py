"""Partners of clusters in the other modality, of which several may have the same one, and how certain they are."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from clustering.matching import Matching, best_assignment, mutual_nearest
from clustering.transport import REGULARISATION, transport_plan

NO_PARTNER = -1
Pairs = tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]  # visible clusters, infrared clusters
BackPairs = tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]  # as well


@dataclass(frozen=True, slots=True)
class DirectedMatching:
    """The partner of each cluster in the other modality, or `NO_PARTNER`, and the similarity to it (NaN without one).

    Several clusters may have the same partner, which has one of them as its own, or another cluster.
    """

    of_visible: Int64[np.ndarray, " c1"]
    of_infrared: Int64[np.ndarray, " c2"]
    visible_similarity: Float32[np.ndarray, " c1"]
    infrared_similarity: Float32[np.ndarray, " c2"]

    def __post_init__(self) -> None:
        for side, others in ((self.of_visible, self.of_infrared), (self.of_infrared, self.of_visible)):
            if np.any((side < NO_PARTNER) | (side >= len(others))):
                raise ValueError(f"a partner must be {NO_PARTNER} or one of {len(others)} clusters")

    def pairs(self) -> Pairs:
        """Every pair that either side names, once, ascending by visible and then by infrared cluster."""
        forth, back = np.flatnonzero(self.of_visible >= 0), np.flatnonzero(self.of_infrared >= 0)
        visible = np.concatenate([forth, self.of_infrared[back]])
        infrared = np.concatenate([self.of_visible[forth], back])
        rows, columns = np.unique(np.stack([visible, infrared], axis=1), axis=0).T
        return rows, columns

    def agreed(self) -> Matching:
        """The pairs in which each is the other's partner: one to one."""
        visible = np.flatnonzero(self.of_visible >= 0)
        infrared = self.of_visible[visible]
        kept = self.of_infrared[infrared] == visible
        return Matching(visible[kept], infrared[kept], self.visible_similarity[visible[kept]])


def directed(matching: Matching, num_visible: int, num_infrared: int) -> DirectedMatching:
    """The partners in a one-to-one matching of so many visible and infrared clusters."""
    of_visible, of_infrared = np.full(num_visible, NO_PARTNER), np.full(num_infrared, NO_PARTNER)
    of_visible[matching.visible], of_infrared[matching.infrared] = matching.infrared, matching.visible
    similarities = np.full(num_visible, np.nan, np.float32), np.full(num_infrared, np.nan, np.float32)
    similarities[0][matching.visible] = similarities[1][matching.infrared] = matching.similarity
    return DirectedMatching(of_visible, of_infrared, *similarities)


def find_partners(
    similarity: Float32[np.ndarray, "c1 c2"],
    *,
    method: Literal["hungarian", "mutual", "progressive", "transport"] = "hungarian",
    floor: float | None = None,
    strict: bool = True,
    sizes: tuple[Int64[np.ndarray, " c1"], Int64[np.ndarray, " c2"]] | None = None,
    regularisation: float = REGULARISATION,
) -> DirectedMatching:
    """Find the partners of visible clusters (rows) and infrared ones (columns). Transposing exchanges the fields.

    Args:
        similarity: Of prototypes, or from `sub_prototype_similarity`. Finite.
        method: "hungarian" and "mutual" as in `match_clusters`; "progressive" as in `progressive_pairs`, where each
            cluster's partner is the most similar of its pairs; "transport" by the arg-max of rows and of columns of
            `transport_plan`.
        floor: Similarity below which a pair is dropped, after the assignment.
        strict: For "transport": keep the pairs that agree both ways only.
        sizes: For "transport": masses of the clusters, for instance their numbers of images; equal by default.
        regularisation: For "transport", above 0.

    Raises:
        ValueError: A similarity is not finite, or as `transport_plan`.

    Cost: 20 ms at 616 x 500; "transport" see there.
    """
    if not np.isfinite(similarity).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(similarity)):,} similarities are not finite")
    match method:
        case "hungarian":
            pairs = best_assignment(similarity)
        case "mutual":
            pairs = mutual_nearest(similarity)
        case "progressive":
            pairs = progressive_pairs(similarity)
        case "transport":
            plan = transport_plan(similarity, sizes=sizes, regularisation=regularisation)
            if not strict and plan.size:
                forth, back = (
                    (np.arange(len(plan)), plan.argmax(axis=1)),
                    (plan.argmax(axis=0), np.arange(plan.shape[1])),
                )
                return _partners(similarity, forth, back, floor)
            pairs = mutual_nearest(plan)
    return _partners(similarity, pairs, pairs, floor)


def progressive_pairs(similarity: Float[np.ndarray, "c1 c2"]) -> Pairs:
    """Assign the whole larger side to the smaller one, in rounds: many-to-one pairs, ascending by visible cluster.

    A round is the best one-to-one assignment of the clusters of the larger side that are left to all of the smaller
    side; rounds end when none is left. Each cluster of the larger side is in one pair. No pairs if a side is empty.

    Cost: One assignment a round, larger / smaller rounds (rounded up).

    Source: PGM, CVPR 2023, progressive graph matching. Differs: rounds until none is left, in either direction, where
    the released code makes one extra pass; the sum of similarities is maximised. The published cost, exp(-cosine), is
    obtained with -exp(-cosine) as the similarity.
    """
    if similarity.shape[0] < similarity.shape[1]:
        smaller, larger = progressive_pairs(similarity.T)[::-1]
        order = np.lexsort((larger, smaller))
        return smaller[order], larger[order]
    left = np.arange(len(similarity))
    partner = np.full(len(similarity), NO_PARTNER)
    while len(left) and similarity.shape[1]:
        rows, columns = best_assignment(similarity[left])
        partner[left[rows]] = columns
        left = np.delete(left, rows)
    rows = np.flatnonzero(partner != NO_PARTNER)
    return rows, partner[rows]


def confidence(
    similarity: Float32[np.ndarray, "c1 c2"], pairs: Pairs, *, temperature: float
) -> Float32[np.ndarray, " m"]:
    """How certain each pair is, in [0, 1]: 0 if a cluster that is no partner is as similar.

    With m the margin of a pair over the most similar cluster of its row that is no partner there, and likewise of its
    column, this is sqrt(tanh(m_row+ / 2t) tanh(m_column+ / 2t)), where m+ is max(m, 0). Without others a factor is 1.

    Args:
        similarity: Visible clusters by infrared ones.
        pairs: Visible and infrared clusters of the pairs.
        temperature: t, the margin at which a factor is 0.46; above 0.

    Raises:
        ValueError: The temperature is not above 0.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    rows, columns = pairs
    others = similarity.astype(np.float64)
    own = others[pairs]
    others[pairs] = -np.inf
    best = others.max(axis=1, initial=-np.inf)[rows], others.max(axis=0, initial=-np.inf)[columns]
    factors = [np.tanh(np.maximum(own - other, 0.0) / (2.0 * temperature)) for other in best]
    certain: Float32[np.ndarray, " m"] = np.sqrt(factors[0] * factors[1]).astype(np.float32)
    return certain


def margins(
    similarity: Float32[np.ndarray, "c1 c2"], rows: Int64[np.ndarray, " m"], columns: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """Similarity of each pair less that of the best other column of its row; infinite without others."""
    others = similarity[rows].astype(np.float64)
    own = others[np.arange(len(rows)), columns]
    others[np.arange(len(rows)), columns] = -np.inf
    return np.asarray(own - others.max(axis=1, initial=-np.inf))


def _partners(
    similarity: Float32[np.ndarray, "c1 c2"], forth: Pairs, back: BackPairs, floor: float | None
) -> DirectedMatching:
    """The partners of visible clusters from pairs `forth`, those of infrared ones from `back`."""
    of_visible, visible_similarity = _most_similar(similarity, forth, floor)
    of_infrared, infrared_similarity = _most_similar(similarity.T, (back[1], back[0]), floor)
    return DirectedMatching(of_visible, of_infrared, visible_similarity, infrared_similarity)


def _most_similar(
    similarity: Float32[np.ndarray, "c1 c2"], pairs: Pairs, floor: float | None
) -> tuple[Int64[np.ndarray, " c1"], Float32[np.ndarray, " c1"]]:
    """For each row, the most similar column of its pairs at the floor or above, the first in a tie; and how similar."""
    rows, columns = pairs
    values = similarity[rows, columns]
    order = np.lexsort((-columns, values))  # the last assignment to a row wins
    order = order[values[order] >= (-np.inf if floor is None else floor)]
    partner = np.full(len(similarity), NO_PARTNER)
    found = np.full(len(similarity), np.nan, np.float32)
    partner[rows[order]], found[rows[order]] = columns[order], values[order]
    return partner, found
