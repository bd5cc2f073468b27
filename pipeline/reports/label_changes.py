"""What changed between the clusters of two rounds: splits, merges and other pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from clustering.dbscan import OUTLIER
from models.modality import PerModality
from pipeline.storage.label_files import RoundLabels

NO_CLUSTER = -1


@dataclass(frozen=True, slots=True)
class Regrouping:
    """A cluster that became several (`whole` before, `parts` now), or several that became one (the reverse)."""

    whole: int
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Repairing:
    """A visible cluster whose partner is not the one of the cluster that it continues; None for no partner."""

    visible: int
    before: int | None
    now: int | None


@dataclass(frozen=True, slots=True)
class LabelChanges:
    """Changes since the round before, the largest clusters first.

    A cluster continues an earlier one if more than half of its images with a cluster in both rounds were there. A split
    has several clusters that continue the same one; a merge is the reverse. `joined` and `left` count images that were
    outliers before, and that are now.
    """

    splits: PerModality[tuple[Regrouping, ...]]
    merges: PerModality[tuple[Regrouping, ...]]
    repaired: tuple[Repairing, ...]
    joined: PerModality[int]
    left: PerModality[int]


def find_changes(before: RoundLabels, now: RoundLabels) -> LabelChanges:
    """Compare two rounds of one run; earlier label files have no pairs, and then no pair is a new one."""
    earlier, current = before.labels, now.labels
    continued = current.map_with(_continued, earlier)
    return LabelChanges(
        splits=continued.map(_grouped),
        merges=earlier.map_with(_continued, current).map(_grouped),
        repaired=_repaired(before, now, continued),
        joined=earlier.map_with(lambda old, new: int(((old == OUTLIER) & (new != OUTLIER)).sum()), current),
        left=earlier.map_with(lambda old, new: int(((old != OUTLIER) & (new == OUTLIER)).sum()), current),
    )


def _continued(own: Int64[np.ndarray, " n"], other: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " _"]:
    """For each cluster of `own`, the cluster of `other` with more than half of its images, or `NO_CLUSTER`.

    >>> _continued(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 2, 2, -1]))
    array([4, 2])
    """
    found = np.full(int(own.max(initial=OUTLIER)) + 1, NO_CLUSTER)
    both = (own != OUTLIER) & (other != OUTLIER)
    images = np.bincount(own[both], minlength=len(found))
    pairs, counts = np.unique(np.stack([own[both], other[both]]), axis=1, return_counts=True)
    most = 2 * counts > images[pairs[0]]
    found[pairs[0][most]] = pairs[1][most]
    return found


def _grouped(continued: Int64[np.ndarray, " _"]) -> tuple[Regrouping, ...]:
    wholes, counts = np.unique(continued[continued != NO_CLUSTER], return_counts=True)
    several = wholes[counts > 1].tolist()
    found = [Regrouping(whole, tuple(np.flatnonzero(continued == whole).tolist())) for whole in several]
    return tuple(sorted(found, key=lambda one: -len(one.parts)))


def _repaired(
    before: RoundLabels, now: RoundLabels, continued: PerModality[Int64[np.ndarray, " _"]]
) -> tuple[Repairing, ...]:
    if before.pairs is None or now.pairs is None:
        return ()
    old = dict(zip(before.pairs.visible.tolist(), before.pairs.infrared.tolist(), strict=True))
    new = dict(zip(now.pairs.visible.tolist(), now.pairs.infrared.tolist(), strict=True))
    found = []
    for visible, earlier in enumerate(continued.visible.tolist()):
        if earlier == NO_CLUSTER:
            continue
        partner, was = new.get(visible), old.get(earlier)
        if partner == was is None or (partner is not None and continued.infrared[partner] == was):
            continue
        found.append(Repairing(visible, was, partner))
    return tuple(found)
