"""Clusters of a round: labels of each modality, their prototypes, and which clusters are the same person."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64

from clustering.dbscan import Clustering, EpsPoint
from clustering.jaccard import TooManyPairsError
from clustering.joint import JointClusters, label_jointly
from clustering.labelling import Labelling, label_images
from clustering.local_scaling import locally_scaled
from clustering.matching import Assign, Matching, match_clusters, mutual_nearest
from clustering.partners import DirectedMatching, confidence, directed, find_partners
from clustering.prototypes import CameraProxies, cluster_prototypes
from clustering.sub_prototypes import sub_prototype_similarity, sub_prototypes
from clustering.whitening import whitened_similarity
from models.modality import Modality, PerModality
from models.swap import best_assignment
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.labelling import (
    ClusteringConfig,
    JointClusteringConfig,
    LabellingConfig,
    MatchingConfig,
)
from pipeline.errors import DegenerateClustering, TrainingError
from pipeline.features import FeatureBank
from pipeline.methods.cclnet.state import DescribedClusters
from pipeline.methods.cclnet.targets import Targets

logger = logging.getLogger(__name__)

Vectors = PerModality[Float32[np.ndarray, "_ dim"]]
"""Unit features of the training images."""

HUB_FACTOR = 20
"""An image among the neighbours of more than this many times k1 others points to collapsed features."""


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Result of a round's clustering, used by training, swapping, prompts, figures and the record.

    `found` has the clustering of each modality with its diagnostics, `prototypes` one unit vector a cluster,
    `similarity` that of visible to infrared clusters by which they are paired, `matching` the visible and infrared
    clusters of the same person, one to one; the others have no partner there. In `partners` several clusters may have
    one partner. `assign` paired them; swapping pairs the moving prototypes by it.
    `two_modality_share` is that of a joint clustering, else None. `targets` are what images are classified to, where it
    is more than their cluster; `proxies` are the clusters split by camera, where training contrasts with these.
    """

    found: PerModality[Labelling]
    prototypes: PerModality[Float32[np.ndarray, "_ dim"]]
    similarity: Float32[np.ndarray, "visible infrared"]
    matching: Matching
    assign: Assign
    partners: DirectedMatching
    two_modality_share: float | None = None
    targets: PerModality[Targets] | None = None
    proxies: PerModality[CameraProxies | None] = field(default_factory=lambda: PerModality(None, None))

    @property
    def clusterings(self) -> PerModality[Clustering]:
        """Pseudo-labels and core flags of the training images, in their shuffled order."""
        return self.found.map(lambda labelling: labelling.clustering)

    @property
    def labels(self) -> PerModality[Int64[np.ndarray, " _"]]:
        """The cluster of each training image, or `OUTLIER`."""
        return self.found.map(lambda labelling: labelling.clustering.labels)

    def described(self, config: CclnetConfig) -> DescribedClusters:
        """What prompt learning needs of them; no pairs if fewer than `loss.min_mutual_share` are mutual."""
        usable = self.mutual_share >= config.loss.min_mutual_share
        pairs = PerModality(self.matching.visible, self.matching.infrared).map(lambda own: own if usable else own[:0])
        certain = confidence(self.similarity, (pairs.visible, pairs.infrared), temperature=config.memory.temperature)
        return DescribedClusters(self.clusterings, pairs, certain)

    @property
    def pairs(self) -> PerModality[Int64[np.ndarray, " pairs"]]:
        """All pairs, also many-to-one ones: entry i of one vector with entry i of the other; ascending by visible."""
        return PerModality(*self.partners.pairs())

    @property
    def matched_share(self) -> float:
        """Share of the clusters of both modalities that have a partner."""
        return sum(len(np.unique(own)) for own in self.pairs) / sum(self.prototypes.map(len))

    @property
    def mutual_share(self) -> float:
        """Share of the clusters of both modalities that are mutual nearest ones."""
        return 2 * len(mutual_nearest(self.similarity)[0]) / sum(self.prototypes.map(len))


def match_found(
    vectors: PerModality[Float32[np.ndarray, "_ dim"]],
    found: PerModality[Labelling],
    settings: MatchingConfig,
    assign: Assign | None = None,
) -> Clusters:
    """Average the clusters of each modality (unit rows, at least one cluster) and pair them.

    `assign` pairs them instead of `settings.method`.
    """
    prototypes = vectors.map_with(lambda rows, own: cluster_prototypes(rows, own.clustering.labels), found)
    again = assign or (mutual_nearest if settings.method == "mutual" else best_assignment)
    similarity = _similarity(vectors, found, prototypes, settings)
    if settings.local_scaling:
        similarity = locally_scaled(similarity, neighbours=settings.local_scaling)
    plain = settings.cost == "prototype" and settings.local_scaling == 0 and settings.method in ("hungarian", "mutual")
    if assign is None and not plain:
        partners = find_partners(similarity, method=settings.method, floor=settings.floor)
        return Clusters(found, prototypes, similarity, partners.agreed(), again, partners)
    one_to_one: Literal["hungarian", "mutual"] = "mutual" if settings.method == "mutual" else "hungarian"
    pairs = match_clusters(*prototypes, method=assign or one_to_one, floor=settings.floor)
    return Clusters(found, prototypes, similarity, pairs, again, directed(pairs, *prototypes.map(len)))


def match_jointly(
    vectors: PerModality[Float32[np.ndarray, "_ dim"]],
    joint: Labelling,
    parts: JointClusters,
    settings: MatchingConfig,
) -> Clusters:
    """The clusters of a joint clustering: those that hold both modalities are the pairs."""
    found = PerModality(parts.visible, parts.infrared).map(lambda one: replace(joint, clustering=one))
    prototypes = vectors.map_with(lambda rows, own: cluster_prototypes(rows, own.clustering.labels), found)
    read = parts.matching
    kept = read.similarity >= settings.floor
    pairs = Matching(read.visible[kept], read.infrared[kept], read.similarity[kept])
    partners, similarity = directed(pairs, *prototypes.map(len)), prototypes.visible @ prototypes.infrared.T
    return Clusters(found, prototypes, similarity, pairs, best_assignment, partners, parts.two_modality_share)


def _similarity(
    vectors: PerModality[Float32[np.ndarray, "_ dim"]],
    found: PerModality[Labelling],
    prototypes: PerModality[Float32[np.ndarray, "_ dim"]],
    settings: MatchingConfig,
) -> Float32[np.ndarray, "visible infrared"]:
    if settings.cost == "prototype":
        of_prototypes: Float32[np.ndarray, "visible infrared"] = prototypes.visible @ prototypes.infrared.T
        return of_prototypes
    if settings.cost == "whitened":
        return whitened_similarity(*prototypes)
    parts = vectors.map_with(lambda rows, own: sub_prototypes(rows, own.clustering.labels), found)
    return sub_prototype_similarity(*parts)


def label_modality(bank: FeatureBank, settings: ClusteringConfig, device: torch.device) -> Labelling:
    """Cluster the images of one modality.

    Cost: The nearest-neighbour search: 13 s for 22,258 images of width 2,048 on two cores; the rest about a second.
    """
    with _explained(f"{bank.modality} images", f"labelling.{bank.modality}", device):
        return label_images(
            bank.vectors,
            k1=settings.k1,
            k2=settings.k2,
            eps=settings.eps,
            min_samples=settings.min_samples,
            k1_counts_self=settings.k1_counts_self,
            neighbour_method=settings.neighbour_method,
            method=settings.method,
            device=str(device),
        )


def label_together(
    vectors: PerModality[Float32[np.ndarray, "_ dim"]], settings: JointClusteringConfig, device: torch.device
) -> Labelling:
    """Cluster the images of both modalities together; see `label_jointly`."""
    with _explained("images of both modalities", "labelling.joint", device):
        return label_jointly(*vectors, **settings.model_dump(), device=str(device))


@contextmanager
def _explained(images: str, section: str, device: torch.device) -> Iterator[None]:
    """Turn errors of clustering into those that a user can act on."""
    try:
        yield
    except TooManyPairsError as error:
        raise DegenerateClustering(f"{images}: {error}", hint=f"lower {section}.eps, or train longer first") from error
    except ValueError as error:
        raise TrainingError(
            f"the {images} cannot be clustered on {device}: {error}",
            hint="use another execution.device, or lower optimisation.learning_rate where features are not finite",
        ) from error


def pack_labelling(labelling: Labelling) -> dict[str, Any]:
    """Tensors and plain values only, as ranks exchange them."""
    packed = asdict(labelling)
    packed["clustering"] = {name: torch.from_numpy(array) for name, array in packed["clustering"].items()}
    packed["curve"] = [asdict(point) for point in labelling.curve]
    packed["ranks"] = torch.from_numpy(labelling.ranks)
    return packed


def unpack_labelling(packed: Mapping[str, Any]) -> Labelling:
    """Inverse of `pack_labelling`."""
    clustering = Clustering(**{name: tensor.numpy() for name, tensor in packed["clustering"].items()})
    curve = tuple(EpsPoint(**point) for point in packed["curve"])
    arrays = {"clustering": clustering, "curve": curve, "ranks": packed["ranks"].numpy()}
    return Labelling(**(dict(packed) | arrays))


def usable_labels(
    labellings: PerModality[Labelling],
    previous: PerModality[Clustering] | None,
    settings: LabellingConfig,
    clusters_per_batch: int,
) -> PerModality[Labelling]:
    """Keep each modality's new labels, or those of the last round with clusters if there is none; warn about anomalies.

    Raises:
        DegenerateClustering: No cluster, and none of an earlier round, or the settings refuse these.
    """

    def choose(modality: Modality) -> Labelling:
        labelling = labellings[modality]
        clustering = settings.visible if modality is Modality.VISIBLE else settings.infrared
        warn_of_anomalies(labelling, modality, settings, clustering, clusters_per_batch)
        if labelling.clustering.num_clusters > 0:
            return labelling
        problem = _no_clusters(labelling, modality, clustering)
        if previous is None or settings.on_no_clusters == "error":
            raise DegenerateClustering(
                problem,
                hint=f"raise labelling.{modality}.eps, lower labelling.{modality}.min_samples, "
                "or train longer before labelling",
            )
        logger.warning("%s; using the labels of the last round with clusters", problem)
        return replace(labelling, clustering=previous[modality])

    return PerModality.build(choose)


def _no_clusters(labelling: Labelling, modality: Modality, clustering: ClusteringConfig) -> str:
    quantiles = ", ".join(
        f"{share}: {distance:.3f}" for share, distance in (labelling.distance_quantiles or {}).items()
    )
    return (
        f"no cluster among {len(labelling.clustering.labels)} {modality} images at eps {clustering.eps}, "
        f"k1 {labelling.k1} (Jaccard distance to neighbours at {quantiles or 'no pair'})"
    )


def warn_of_anomalies(
    labelling: Labelling,
    modality: Modality,
    settings: LabellingConfig,
    clustering: ClusteringConfig | JointClusteringConfig,
    clusters_per_batch: int,
) -> None:
    """Log what may spoil a round: too few images or clusters, hubs, many outliers, one large cluster."""
    labels = labelling.clustering
    if labelling.k1 < clustering.k1 or labelling.k2 < clustering.k2:
        logger.warning(
            "only %d %s images: k1 %d and k2 %d are used instead of %d and %d",
            len(labels.labels), modality, labelling.k1, labelling.k2, clustering.k1, clustering.k2,
        )  # fmt: skip
    if labelling.max_in_degree > HUB_FACTOR * labelling.k1:
        logger.warning(
            "one %s image is a neighbour of %d others: features may have collapsed", modality, labelling.max_in_degree
        )
    if labels.num_clusters == 1:
        logger.warning("a single %s cluster: its contrastive loss is 0 this round", modality)
    elif 0 < labels.num_clusters < clusters_per_batch:
        logger.warning(
            "%d %s clusters, fewer than the %d of a batch: batches show all of them",
            labels.num_clusters,
            modality,
            clusters_per_batch,
        )
    if labels.outlier_share > settings.max_outlier_share:
        logger.warning(
            "%.0f%% of the %s images are outliers at eps %s", 100 * labels.outlier_share, modality, clustering.eps
        )
    if labels.largest_share > settings.max_largest_share:
        logger.warning(
            "one cluster holds %.0f%% of the %s images at eps %s", 100 * labels.largest_share, modality, clustering.eps
        )
