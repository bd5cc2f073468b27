"""Quality of pseudo-labels and matchings against true identities: for curves only, never read by training."""

import numpy as np
from jaxtyping import Int64

from clustering.dbscan import OUTLIER
from clustering.matching import Matching
from models.modality import PerModality


def label_diagnostics(labels: Int64[np.ndarray, " n"], person_ids: Int64[np.ndarray, " n"]) -> dict[str, float]:
    """Compare pseudo-labels with true identities, under two conventions for outliers; papers rarely name theirs.

    `_clustered` ignores outliers, which rewards a clustering that gives up on hard images. `_all` counts every
    outlier as a cluster of its own; if all images are outliers, only `_all` is returned.

    Returns:
        For each convention `ari` in [-.5, 1]; `nmi` in [0, 1] (arithmetic mean, also called V-measure), and its two
        parts `homogeneity` (falls when clusters mix people) and `completeness` (falls when people are split).

    Source: Hubert and Arabie, 1985 (ARI); Rosenberg and Hirschberg, 2007 (V-measure).
    """
    # Not above: it takes seconds to import, and `majority_people` does without it.
    from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

    clustered = labels != OUTLIER
    alone = labels.copy()
    alone[~clustered] = labels.max(initial=OUTLIER) + 1 + np.arange(np.count_nonzero(~clustered))
    scores: dict[str, float] = {}
    for images, found, people in (("clustered", labels[clustered], person_ids[clustered]), ("all", alone, person_ids)):
        if found.size:
            homogeneity, completeness, nmi = homogeneity_completeness_v_measure(people, found)
            scores[f"ari_{images}"] = float(adjusted_rand_score(people, found))
            scores[f"nmi_{images}"] = float(nmi)
            scores[f"homogeneity_{images}"] = float(homogeneity)
            scores[f"completeness_{images}"] = float(completeness)
    return scores


def matching_diagnostics(
    matching: Matching | PerModality[Int64[np.ndarray, " _"]],
    labels: PerModality[Int64[np.ndarray, " n"]],
    person_ids: PerModality[Int64[np.ndarray, " n"]],
) -> dict[str, float]:
    """Compare matched clusters with true identities; a cluster counts as the person on most of its images.

    Returns:
        `precision`: share of pairs of one person; absent without pairs. `recall`: share of the people with clusters in
        both modalities who have at least one correct pair; absent without such people.
    """
    people = labels.map_with(majority_people, person_ids)
    visible, infrared = people.visible[matching.visible], people.infrared[matching.infrared]
    right = visible == infrared
    in_both = np.intersect1d(people.visible, people.infrared)
    scores: dict[str, float] = {}
    if right.size:
        scores["precision"] = float(right.mean())
    if in_both.size:
        scores["recall"] = len(np.unique(visible[right])) / in_both.size
    return scores


def majority_people(labels: Int64[np.ndarray, " n"], person_ids: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " c"]:
    """The person on most images of each cluster 0, 1, ...; the smallest id among equals."""
    clustered = labels != OUTLIER
    pairs = np.stack([labels[clustered], person_ids[clustered]])
    (cluster, person), images = np.unique(pairs, axis=1, return_counts=True)
    order = np.lexsort((person, -images, cluster))
    first_of_each_cluster = np.unique(cluster[order], return_index=True)[1]
    majority: Int64[np.ndarray, " c"] = person[order][first_of_each_cluster]
    return majority
