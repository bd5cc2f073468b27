"""Contrast of images with the proxies of their cluster in other cameras of the modality; see `memory.cameras`."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from clustering.prototypes import CameraProxies, camera_proxies
from models.encoder import Head
from models.losses import camera_contrast
from models.memory import MemoryUpdate, PrototypeMemory
from models.modality import Modality, PerModality
from models.transfer import upload
from pipeline.config.cclnet import MemoryConfig
from pipeline.data.images import TrainingImages
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.contrast import unit_necks
from pipeline.training.objective import Batch, Term

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class CameraContrast:
    """The proxies of a modality during an epoch, which change `memory`; the values are those of section `memory`."""

    modality: Modality
    memory: PrototypeMemory
    proxies: CameraProxies
    weight: float
    negatives: int

    def term(self, temperature: float) -> Term:
        """The contrast with the proxies after the last step."""
        device = self.memory.prototypes.device
        own, clusters = upload(self.proxies.of_images, device), upload(self.proxies.clusters, device)

        def loss(batch: Batch) -> Tensor:
            logits = self.memory.logits(batch.once(unit_necks)[self.modality], temperature)
            return camera_contrast(logits, own[batch.positions[self.modality]], clusters, self.negatives)

        return Term(f"{self.modality}_cameras", self.weight, frozenset({Head.NECK}), loss)

    def update(self, batch: Batch, rule: MemoryUpdate) -> None:
        """Move the proxies towards the images of a step."""
        own = torch.from_numpy(self.proxies.of_images[batch.host_positions[self.modality]])
        self.memory.update(batch.once(unit_necks)[self.modality], own, rule)


def warn_of_single_cameras(images: PerModality[TrainingImages], settings: MemoryConfig) -> None:
    """Log where `memory.cameras = "proxies"` has no effect."""
    single = [modality for modality, some in images.items() if not _several(some.cameras)]
    if settings.cameras == "proxies" and single:
        reason = f"the {' and the '.join(single)} images are of one camera"
        where = "" if len(single) == len(Modality) else f" for {single[0]} images"
        logger.warning('memory.cameras = "proxies" changes nothing%s: %s', where, reason)


def split_by_camera(
    clusters: Clusters,
    vectors: PerModality[Float32[np.ndarray, "_ dim"]],
    images: PerModality[TrainingImages],
    settings: MemoryConfig,
) -> Clusters:
    """Add the proxies of modalities with several cameras, if `memory.cameras` has them."""
    if settings.cameras == "ignored":
        return clusters

    def split(modality: Modality) -> CameraProxies | None:
        cameras = images[modality].cameras
        return camera_proxies(vectors[modality], clusters.labels[modality], cameras) if _several(cameras) else None

    return replace(clusters, proxies=PerModality.build(split))


def camera_contrasts(clusters: Clusters, settings: MemoryConfig, device: torch.device) -> tuple[CameraContrast, ...]:
    """The contrast of each modality that has proxies."""

    def contrast(modality: Modality, proxies: CameraProxies) -> CameraContrast:
        memory = PrototypeMemory(torch.from_numpy(proxies.prototypes).to(device))
        return CameraContrast(modality, memory, proxies, settings.camera_weight, settings.camera_negatives)

    return tuple(contrast(modality, own) for modality, own in clusters.proxies.items() if own is not None)


def _several(cameras: np.ndarray) -> bool:
    return bool((cameras != cameras[0]).any())
