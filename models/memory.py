"""One unit vector per cluster of a modality, and the rules that move it towards the images of a batch.

Nothing here happens inside `backward`: `update` and the swap of `models.swap` are called explicitly, after the
optimiser's step. Pass labels as CPU tensors, because the host waits for those on a GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from models.rows import normalise_rows
from models.transfer import upload


class PrototypeMemory:
    """The prototypes of one modality's clusters during one round: one unit row a cluster, copied.

    A write binds a new tensor and does not change the old one, so the gradient of a loss uses the prototypes of its
    forward pass, whatever the order of `backward` and `update`.

    Raises:
        ValueError: There is no row, or a row is not of unit length.
    """

    def __init__(self, prototypes: Float[Tensor, "clusters dim"]) -> None:
        lengths = torch.linalg.vector_norm(prototypes, dim=1)
        if prototypes.shape[0] == 0 or not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3, rtol=0.0):
            raise ValueError(f"prototypes must be one or more rows of length 1, got {prototypes.shape[0]} rows")
        self._prototypes = prototypes.detach().clone()
        self._written = np.ones(prototypes.shape[0], dtype=np.bool_)

    @property
    def prototypes(self) -> Float[Tensor, "clusters dim"]:
        """The current rows, to be read only; write with `update` or `replace`."""
        return self._prototypes

    def logits(self, features: Float[Tensor, "batch dim"], temperature: float) -> Float[Tensor, "batch clusters"]:
        """Cosine of every image (unit row) and every prototype, divided by the temperature; no gradient for prototypes.

        The temperature is 0.05 in CCLNet.
        """
        return features @ self._prototypes.T / temperature

    def update(
        self, features: Float[Tensor, "batch dim"], labels: Int64[Tensor, " batch"], rule: "MemoryUpdate"
    ) -> None:
        """Move the prototypes of the clusters in a batch (`features`: unit rows, without gradient; labels from 0)."""
        if labels.shape[0] > 0:
            clusters, visitors = self._visits(features, labels)
            self.replace(clusters, rule(self.rows(clusters), visitors))

    def update_with_hardest(
        self, hardest: "PrototypeMemory", features: Float[Tensor, "batch dim"], labels: Int64[Tensor, " batch"],
        momentum: float,
    ) -> None:  # fmt: skip
        """Mix each cluster's mean image into this memory, and the image least similar to its prototype into `hardest`.

        Other arguments as for `update`; `momentum` is the weight of the old prototypes.

        Source: PCLHD, NeurIPS 2024, released code, first stage.
        """
        if labels.shape[0] == 0:
            return
        clusters, visitors = self._visits(features, labels)
        rows = self.rows(clusters)
        mixed = mix_mean_image(rows, visitors, momentum=momentum)
        hard = momentum * hardest.rows(clusters) + (1.0 - momentum) * _hardest_images(rows, visitors)
        self.replace(clusters, mixed)
        hardest.replace(clusters, normalise_rows(hard))

    def rows(self, clusters: Int64[np.ndarray, " some"]) -> Float[Tensor, "some dim"]:
        """The current prototypes of some clusters."""
        return self._prototypes[upload(clusters, self._prototypes.device)]

    def _visits(
        self, features: Float[Tensor, "batch dim"], labels: Int64[Tensor, " batch"]
    ) -> tuple[Int64[np.ndarray, " some"], Sequence[Tensor]]:
        """The clusters in a batch, and their images as a `MemoryUpdate` receives them."""
        host_labels = labels.detach().cpu().numpy()
        num_clusters = self._prototypes.shape[0]
        if host_labels.min() < 0 or host_labels.max() >= num_clusters:
            raise ValueError(
                f"labels {host_labels.min()} to {host_labels.max()} do not fit a memory of {num_clusters} prototypes"
            )
        plan = _plan_visits(host_labels)
        return plan.clusters, features.detach()[upload(plan.order, self._prototypes.device)].split(plan.widths)

    def replace(self, clusters: Int64[np.ndarray, " some"], rows: Float[Tensor, "some dim"]) -> None:
        """Replace the prototypes of distinct clusters by unit rows."""
        self._written[clusters] = True
        self._prototypes = self._prototypes.index_copy(0, upload(clusters, self._prototypes.device), rows)

    def take_written(self) -> Int64[np.ndarray, " some"]:
        """The clusters that were written since the last call; all of them at the first call."""
        written = np.flatnonzero(self._written)
        self._written[:] = False
        return written


MemoryUpdate = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""`(rows, visitors) -> rows`: new unit prototypes of the clusters in a batch.

`rows` are the old prototypes, by decreasing numbers of images. `visitors[r]` holds the r-th image, in batch order, of
each cluster with more than r images: its i-th row belongs to the i-th prototype. Arguments must not be changed.
"""


def memory_update(update: Literal["momentum", "hard"], momentum: float) -> MemoryUpdate:
    """The rule of a setting; `momentum` is the weight of the old prototype, in [0, 1]."""
    match update:
        case "momentum":
            return partial(mix_every_image, momentum=momentum)
        case "hard":
            return partial(mix_hardest_image, momentum=momentum)


@torch.no_grad()
def mix_every_image(
    rows: Float[Tensor, "present dim"], visitors: Sequence[Float[Tensor, "_ dim"]], *, momentum: float
) -> Float[Tensor, "present dim"]:
    """Mix the images of each cluster into its prototype, one after the other, in batch order.

    With momentum 0.1 the last image or two of a cluster dominate: after 16 images the old row weighs about 1e-16.

    Cost: as many vectorised steps as the most frequent cluster has images (16 of 64).

    Source: Chen et al., ACM MM 2023 (CCLNet), momentum update of the cluster memory. Differs: the first images of all
    clusters are mixed in together, then the second ones, and so on, with the same result as image by image.
    """
    rows = rows.clone()
    for visitor in visitors:
        rows[: len(visitor)] = normalise_rows(momentum * rows[: len(visitor)] + (1.0 - momentum) * visitor)
    return rows


@torch.no_grad()
def mix_hardest_image(
    rows: Float[Tensor, "present dim"], visitors: Sequence[Float[Tensor, "_ dim"]], *, momentum: float
) -> Float[Tensor, "present dim"]:
    """Mix the hardest image of each cluster into its prototype: the one least similar to the old prototype.

    Of equally similar images the first in batch order is used.

    Source: hard prototypes of PCLHD, NeurIPS 2024, released code. Differs: there they accompany a memory of mean
    features, by which hardness is measured (`PrototypeMemory.update_with_hardest`); here they are the memory.
    """
    return normalise_rows(momentum * rows + (1.0 - momentum) * _hardest_images(rows, visitors))


@torch.no_grad()
def mix_mean_image(
    rows: Float[Tensor, "present dim"], visitors: Sequence[Float[Tensor, "_ dim"]], *, momentum: float
) -> Float[Tensor, "present dim"]:
    """Mix the mean of each cluster's images (not normalised) into its prototype.

    Source: PCLHD, NeurIPS 2024, released code.
    """
    sums, counts = torch.zeros_like(rows), rows.new_zeros(len(rows), 1)
    for visitor in visitors:
        sums[: len(visitor)] += visitor
        counts[: len(visitor)] += 1.0
    return normalise_rows(momentum * rows + (1.0 - momentum) * sums / counts)


@torch.no_grad()
def _hardest_images(
    rows: Float[Tensor, "present dim"], visitors: Sequence[Float[Tensor, "_ dim"]]
) -> Float[Tensor, "present dim"]:
    hardest = visitors[0].clone()
    least = (rows * hardest).sum(dim=1)
    for visitor in visitors[1:]:
        similarity = (rows[: len(visitor)] * visitor).sum(dim=1)
        harder = similarity < least[: len(visitor)]
        least[: len(visitor)] = torch.where(harder, similarity, least[: len(visitor)])
        hardest[: len(visitor)] = torch.where(harder[:, None], visitor, hardest[: len(visitor)])
    return hardest


@dataclass(frozen=True, slots=True)
class _Visits:
    """The images of a batch by cluster: `order`, in groups of `widths`, and the `clusters`, largest first.

    Group r holds the r-th image of each of the first `widths[r]` clusters.
    """

    clusters: Int64[np.ndarray, " present"]
    order: Int64[np.ndarray, " batch"]
    widths: list[int]


def _plan_visits(labels: Int64[np.ndarray, " batch"]) -> _Visits:
    by_cluster = np.argsort(labels, kind="stable")
    clusters, starts, counts = np.unique(labels[by_cluster], return_index=True, return_counts=True)
    largest_first = np.argsort(-counts, kind="stable")
    place = np.empty(len(clusters), dtype=np.int64)
    place[largest_first] = np.arange(len(clusters))
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    order = by_cluster[np.lexsort((np.repeat(place, counts), rank))]
    return _Visits(clusters[largest_first], order, np.bincount(rank).tolist())
