"""Settings of clustering the images of either modality or of both, and of pairing their clusters."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.config.shared import STRICT


class ClusteringConfig(BaseModel, **STRICT):
    """Clustering of the images of one modality."""

    k1: int = Field(30, ge=2)
    """Size of an image's k-reciprocal neighbourhood, including itself."""
    k2: int = Field(6, ge=1)
    """Nearest neighbours for query expansion of the neighbourhood weights; at most `k1`."""
    eps: float = Field(0.6, gt=0, lt=1)
    """Largest Jaccard distance between neighbours in a cluster."""
    min_samples: int = Field(4, ge=1)
    """Images within `eps`, including itself, that make an image a core point."""
    method: Literal["dbscan", "components", "louvain"] = "dbscan"
    """Clustering algorithm on the graph of images within `eps`."""
    neighbour_method: Literal["exact", "ivf", "hnsw"] = "exact"
    """Neighbour search; `ivf` and `hnsw` are approximate, and their recall is recorded."""
    k1_counts_self: bool = True
    """Count the image itself as one of the `k1`; false adds one neighbour, as re-ranking does."""

    @model_validator(mode="after")
    def _neighbourhoods_fit(self) -> Self:
        if self.k2 > self.k1:
            raise ValueError(f"k2 is {self.k2}, more than k1 = {self.k1}")
        return self


class JointClusteringConfig(BaseModel, **STRICT):
    """Clustering of the images of both modalities together, with `labelling.space = "joint_balanced"`."""

    k1: int = Field(30, ge=2, multiple_of=2)
    """Length of the neighbour lists; half of them are images of each modality."""
    k2: int = Field(6, ge=1)
    """Nearest images of each modality over which a neighbourhood is averaged; at most half of `k1`."""
    eps: float = Field(0.6, gt=0, lt=1)
    """Largest Jaccard distance between neighbours in a cluster."""
    min_samples: int = Field(4, ge=1)
    """Images within `eps`, including itself, that make an image a core point."""
    method: Literal["dbscan", "components", "louvain"] = "dbscan"
    """Clustering algorithm on the graph of images within `eps`."""

    @model_validator(mode="after")
    def _neighbourhoods_fit(self) -> Self:
        if self.k2 > self.k1 // 2:
            raise ValueError(f"k2 is {self.k2}, more than half of k1 = {self.k1}")
        return self


class LabellingConfig(BaseModel, **STRICT):
    """Pseudo-labels of each modality."""

    space: Literal["per_modality", "joint_balanced"] = "per_modality"
    """`joint_balanced`: one clustering of all images with neighbours of both modalities, which gives the pairs; rounds
    before `start`, and those with too few two-modality clusters, use `visible`, `infrared` and section `matching`."""
    start: int = Field(1, ge=1)
    """First round of each stage with a joint clustering."""
    min_two_modality_share: float = Field(0.05, ge=0, le=1)
    """Share of joint clusters with images of both modalities below which a round clusters each modality alone."""
    relabel: Literal["none", "density"] = "none"
    """`density`: move each clustered image to the nearest prototype of the densest images of a cluster."""
    densest: int = Field(20, ge=1)
    """Images of a cluster that form this prototype, with `relabel`; the release has 5 for RegDB."""
    subset: float = Field(1.0, gt=0, le=1)
    """Share of the visible images in a joint clustering, chosen anew each round; the others are outliers in it."""
    outliers: Literal["drop", "assign"] = "drop"
    """`assign`: outliers that are nearer to a cluster than its median image join it, with half the weight."""
    soft: Literal["none", "neighbours"] = "none"
    """`neighbours`: the clusters of an image's neighbours are a share of its target, and weigh it."""
    soft_neighbours: int = Field(30, ge=2)
    """Neighbours that count for `soft`, the image itself included; at most the smaller `k1`."""
    visible: ClusteringConfig = ClusteringConfig()
    infrared: ClusteringConfig = ClusteringConfig()
    joint: JointClusteringConfig = JointClusteringConfig()
    on_no_clusters: Literal["reuse_previous", "error"] = "reuse_previous"
    """Reaction to a round without clusters in a modality; in the first round always an error."""
    max_outlier_share: float = Field(0.98, gt=0, le=1)
    """Outlier fraction above which a warning is logged."""
    max_largest_share: float = Field(0.2, gt=0, le=1)
    """Image fraction of the largest cluster above which a warning is logged."""


class MatchingConfig(BaseModel, **STRICT):
    """Matching of visible and infrared clusters, for swapping and figures."""

    method: Literal["hungarian", "mutual", "progressive", "transport"] = "hungarian"
    """`hungarian`: one-to-one with the largest sum of similarities; `mutual`: mutual nearest prototypes; `progressive`:
    every cluster of the larger side; `transport`: pairs on which an entropic transport plan agrees both ways."""
    cost: Literal["prototype", "whitened", "sub_prototypes"] = "prototype"
    """What of two clusters is compared: `prototype`: the cosine of their prototypes; `whitened`: that after each
    modality's mean is removed and both are whitened; `sub_prototypes`: four centres of each."""
    local_scaling: int = Field(0, ge=0)
    """Nearest clusters whose mean similarity is taken from that of two clusters (CSLS), so that a cluster that is near
    to all is no one's partner; 0 for none."""
    floor: float = Field(0.0, ge=-1, le=1)
    """Smallest accepted similarity of a pair, as `cost` and `local_scaling` measure it."""


def refuse_unfit_labelling(labelling: LabellingConfig) -> None:
    """Refuse settings of labelling that exclude each other.

    Raises:
        ValueError: With both names.
    """
    listed = min(labelling.visible.k1, labelling.infrared.k1)
    if labelling.soft == "neighbours" and labelling.soft_neighbours > listed:
        raise ValueError(
            f"labelling.soft_neighbours is {labelling.soft_neighbours}, more than the smaller labelling k1 = "
            f"{listed}: lower it, or raise labelling.visible.k1 and labelling.infrared.k1"
        )
    if labelling.soft != "none" and labelling.space != "per_modality":
        raise ValueError(
            "labelling.soft counts neighbours within a modality, and labelling.space = 'joint_balanced' has those "
            "of both: choose one"
        )
    if labelling.subset < 1 and labelling.space == "per_modality":
        raise ValueError("labelling.subset needs labelling.space = 'joint_balanced'")
    if labelling.space != "per_modality" and labelling.relabel != "none":
        raise ValueError(
            "labelling.relabel moves images within a modality, and labelling.space = 'joint_balanced' pairs both: "
            "choose one"
        )


def refuse_unused_labelling(labelling: LabellingConfig, matching: MatchingConfig) -> None:
    """Refuse changed settings of each modality where every round clusters both modalities together.

    Raises:
        ValueError: With both names.
    """
    if labelling.space == "per_modality" or labelling.start > 1 or labelling.min_two_modality_share > 0:
        return
    plain, pairs = ClusteringConfig(), MatchingConfig()
    changed = {
        "labelling.visible": labelling.visible != plain,
        "labelling.infrared": labelling.infrared != plain,
        "matching.method": matching.method != pairs.method,
        "matching.cost": matching.cost != pairs.cost,
        "matching.local_scaling": matching.local_scaling != pairs.local_scaling,
    }
    if any(changed.values()):
        names = " and ".join(name for name, differs in changed.items() if differs)
        raise ValueError(
            "labelling.space = 'joint_balanced' from round 1 with labelling.min_two_modality_share = 0 leaves "
            f"{names} to rounds without joint clusters: raise labelling.start or that share, or choose the defaults"
        )
