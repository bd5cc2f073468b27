"""What each image is classified to in the contrast with memories: its cluster, or shares of several."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from clustering.dbscan import OUTLIER
from clustering.neighbour_votes import SoftLabels


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Clusters of each training image of a modality, with shares that sum to the image's weight, in [0, 1].

    Entries of share 0 are padding. Outliers, which are in no batch, have no share.
    """

    clusters: Int64[np.ndarray, "n some"]
    shares: Float32[np.ndarray, "n some"]

    def scaled(self, weights: Float32[np.ndarray, " n"]) -> "Targets":
        """The same clusters with each image's shares times a weight."""
        return Targets(self.clusters, self.shares * weights[:, None])


def hard_targets(labels: Int64[np.ndarray, " n"]) -> Targets:
    """One share of 1 for each clustered image."""
    clustered = labels != OUTLIER
    return Targets(np.where(clustered, labels, 0)[:, None], clustered.astype(np.float32)[:, None])


def soft_targets(soft: SoftLabels) -> Targets:
    """The shares of `soft`, times the images' weights; as many entries an image as the fullest one needs."""
    counts = np.diff(soft.targets.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(rows)) - np.repeat(soft.targets.indptr[:-1], counts)
    clusters = np.zeros((len(counts), max(1, counts.max(initial=0))), np.int64)
    shares = np.zeros(clusters.shape, np.float32)
    clusters[rows, places], shares[rows, places] = soft.targets.indices, soft.targets.data
    return Targets(clusters, shares).scaled(soft.weights)
