"""One unit vector per cluster, in each modality: compared with, moved by momentum, swapped between the modalities.

Nothing here happens inside `backward`. `PrototypeMemory.logits` only reads; `PrototypeMemory.update` and
`CrossModalSwap.apply` are called by name, after the optimiser's step. Labels are used on the host: hand them over as
CPU tensors where there is a choice, because a label vector on a GPU is waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from models.modality import PerModality

SwapMode = Literal["released", "exchange"]
SwapTrigger = Literal["any_member", "both_members"]
Assign = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_SMALLEST_NORM = 1e-12


def best_assignment(similarity: Float[np.ndarray, "rows columns"]) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows with columns one to one, the total similarity as large as can be; the longer side's rest stays single.

    Cost:
        At 395 x 395 from under 1 ms (clear matches) to about 10 ms (random similarities).
    """
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return rows, columns


class PrototypeMemory:
    """The prototypes of one modality's clusters during one round.

    A write binds a new tensor and leaves the old one alone. So a loss that was formed before the write keeps, for its
    gradient, the prototypes that it was formed with, whatever the order of `backward` and `update`.

    Args:
        prototypes: One unit row a cluster; copied.

    Raises:
        ValueError: There is no row, or a row is not of unit length.
    """

    def __init__(self, prototypes: Float[Tensor, "clusters dim"]) -> None:
        lengths = torch.linalg.vector_norm(prototypes, dim=1)
        if prototypes.shape[0] == 0 or not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3, rtol=0.0):
            raise ValueError(f"prototypes must be one or more rows of length 1, got {prototypes.shape[0]} rows")
        self._prototypes = prototypes.detach().clone()

    @property
    def prototypes(self) -> Float[Tensor, "clusters dim"]:
        """The rows as they are now; read them, and write through `update` or `replace`."""
        return self._prototypes

    def logits(self, features: Float[Tensor, "batch dim"], temperature: float) -> Float[Tensor, "batch clusters"]:
        """Cosine of every image and every prototype, divided by the temperature; no gradient reaches the prototypes.

        Args:
            features: Unit rows; the gradient flows into them.
            temperature: Positive; 0.05 in CCLNet.
        """
        return features @ self._prototypes.T / temperature

    def update(self, features: Float[Tensor, "batch dim"], labels: Int64[Tensor, " batch"], momentum: float) -> None:
        """Mix the batch into its clusters' prototypes, one image after the other, in batch order.

        With momentum 0.1 the last image or two of a cluster decide: after 16 images the old row weighs about 1e-16.

        Args:
            features: Unit rows; their gradient is not followed.
            labels: The cluster of each row, in any order and any number, in [0, clusters).
            momentum: The weight of the old prototype, in [0, 1].

        Raises:
            ValueError: A label has no prototype.

        Cost:
            As many vectorised steps as the most frequent cluster has images (16 of 64), not one an image.

        Source: Chen et al., ACM MM 2023 (CCLNet), momentum update of the cluster memory. Differs: the images that
        are the first of their cluster are taken together, then the second ones, and so on. Clusters do not meet, so
        the outcome is that of the image-by-image rule.
        """
        if labels.shape[0] == 0:
            return
        host_labels = labels.detach().cpu().numpy()
        num_clusters = self._prototypes.shape[0]
        if host_labels.min() < 0 or host_labels.max() >= num_clusters:
            raise ValueError(
                f"labels {host_labels.min()} to {host_labels.max()} do not fit a memory of {num_clusters} prototypes"
            )
        plan = _plan_visits(host_labels)
        device = self._prototypes.device
        clusters = torch.from_numpy(plan.clusters).to(device, non_blocking=True)
        order = torch.from_numpy(plan.order).to(device, non_blocking=True)
        visitors = features.detach()[order].split(plan.widths)
        rows = self._prototypes[clusters]
        for width, visitor in zip(plan.widths, visitors, strict=True):
            rows[:width] = _unit(momentum * rows[:width] + (1.0 - momentum) * visitor)
        self.replace(clusters, rows)

    def replace(self, clusters: Int64[Tensor, " some"], rows: Float[Tensor, "some dim"]) -> None:
        """Give clusters, each named once, new prototypes of unit length."""
        self._prototypes = self._prototypes.index_copy(0, clusters, rows)


@dataclass(frozen=True, slots=True)
class _Visits:
    """In which order images reach their clusters.

    `clusters` are the batch's, largest first. The images are taken in `order`, in groups of `widths`: group r holds
    the r-th image of each of the first `widths[r]` clusters.
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


class ClusterPairing:
    """The best one-to-one pairing of two memories' clusters, kept up to date as prototypes move.

    The similarities stay on the host between calls: only rows and columns of prototypes that changed, bit for bit, are
    computed again, and the pairing is solved again only if there is one.

    Args:
        min_similarity: Pairs less similar than this are dropped, in [-1, 1].
        every: The pairing is looked at anew at each such call; in between the last one stands, however old.
        assign: Similarities to paired rows and columns.

    Raises:
        ValueError: `every` is less than 1.
    """

    def __init__(self, *, min_similarity: float = 0.0, every: int = 1, assign: Assign = best_assignment) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self._min_similarity = min_similarity
        self._every = every
        self._assign = assign
        self._memories: PerModality[PrototypeMemory] | None = None
        self._seen: PerModality[Tensor] | None = None
        self._calls = 0
        self._similarity = np.empty((0, 0), dtype=np.float32)
        self._pairs = PerModality(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        self.num_solved = 0

    @property
    def similarity(self) -> Float[np.ndarray, "visible infrared"]:
        """Cosines of all visible and infrared prototypes when they were last looked at."""
        return self._similarity

    def pairs(self, memories: PerModality[PrototypeMemory]) -> PerModality[np.ndarray]:
        """The paired clusters: entry i of the visible vector belongs to entry i of the infrared one.

        Args:
            memories: Both memories. Other ones than at the last call start the pairing afresh.
        """
        known = self._memories
        if known is None or known.visible is not memories.visible or known.infrared is not memories.infrared:
            self._memories, self._seen, self._calls = memories, None, 0
        due = self._calls % self._every == 0
        self._calls += 1
        if due and self._refresh(memories.map(lambda memory: memory.prototypes)):
            rows, columns = self._assign(self._similarity)
            kept = self._similarity[rows, columns] >= self._min_similarity
            self._pairs = PerModality(rows[kept], columns[kept])
            self.num_solved += 1
        return self._pairs

    def _refresh(self, prototypes: PerModality[Tensor]) -> bool:
        """Bring the similarities up to date; whether any prototype had changed."""
        seen, self._seen = self._seen, prototypes
        if seen is None:
            self._similarity = (prototypes.visible @ prototypes.infrared.T).cpu().numpy()
            return True
        rows, columns = seen.map_with(_changed_rows, prototypes)
        if rows.numel() > 0:
            self._similarity[rows.cpu().numpy()] = (prototypes.visible[rows] @ prototypes.infrared.T).cpu().numpy()
        if columns.numel() > 0:
            block = prototypes.visible @ prototypes.infrared[columns].T
            self._similarity[:, columns.cpu().numpy()] = block.cpu().numpy()
        return rows.numel() > 0 or columns.numel() > 0


@dataclass(frozen=True, slots=True)
class SwapCount:
    """What one step of swapping did: pairs that exist, and pairs whose prototypes were written."""

    paired: int
    written: int


class CrossModalSwap:
    """Let matched visible and infrared prototypes trade places, so that each modality learns from the other's features.

    Make one for each round: the memories are new then.

    Args:
        mode: `released` writes one side at a time: the visible prototype takes over the infrared one if its cluster is
            in the batch, then the infrared one takes over the **already written** visible one if its own is. No pair is
            ever truly exchanged. `exchange` writes both sides together, from the values that the momentum update left.
        trigger: For `exchange`: whether one or both clusters of a pair must be in the batch. `both_members` almost
            never happens with 4 of 400 clusters in a batch. `released` has no use for it.
        scale: The share of its own content that a prototype keeps, in [0, 1]; 0 is a pure exchange, bit for bit.
        min_similarity: Pairs less similar than this are left alone, in [-1, 1].
        every: The pairing is solved anew at each such step; more than 1 is an approximation.
        assign: Similarities to paired rows and columns; the default maximises the total.

    Raises:
        ValueError: A value is out of range.

    Cost:
        At 395 + 395 clusters and 64 + 64 images a step: one small product, one assignment (1 to 10 ms on the host) and
        one wait for the device.

    Source: Chen et al., ACM MM 2023 (CCLNet); `released` follows the public code, where the write goes through an
    alias, `exchange` the paper's figure.
    """

    def __init__(
        self,
        *,
        mode: SwapMode = "released",
        trigger: SwapTrigger = "any_member",
        scale: float = 0.1,
        min_similarity: float = 0.0,
        every: int = 1,
        assign: Assign = best_assignment,
    ) -> None:
        if not 0.0 <= scale <= 1.0:
            raise ValueError(f"scale must be in [0, 1], got {scale}")
        self._mode = mode
        self._trigger = trigger
        self._scale = scale
        self.pairing = ClusterPairing(min_similarity=min_similarity, every=every, assign=assign)

    def apply(self, memories: PerModality[PrototypeMemory], labels: PerModality[Tensor]) -> SwapCount:
        """Swap the pairs that the batch touches; both memories change.

        Args:
            memories: Both memories, after their momentum update.
            labels: The clusters of the batch's images, in any order and number.
        """
        pairs = self.pairing.pairs(memories)
        present = pairs.map_with(lambda clusters, batch: np.isin(clusters, batch.cpu().numpy()), labels)
        both_needed = self._mode == "exchange" and self._trigger == "both_members"
        chosen = present.visible & present.infrared if both_needed else present.visible | present.infrared
        count = SwapCount(paired=len(chosen), written=int(chosen.sum()))
        if count.written == 0:
            return count
        device = memories.visible.prototypes.device
        clusters = pairs.map(lambda all_clusters: torch.from_numpy(all_clusters[chosen]).to(device, non_blocking=True))
        rows = memories.map_with(lambda memory, some: memory.prototypes[some], clusters)
        if self._mode == "released":
            inside = present.map(lambda flags: torch.from_numpy(flags[chosen, None]).to(device))
            visible = torch.where(inside.visible, _blend(rows.visible, rows.infrared, self._scale), rows.visible)
            infrared = torch.where(inside.infrared, _blend(rows.infrared, visible, self._scale), rows.infrared)
        else:
            visible = _blend(rows.visible, rows.infrared, self._scale)
            infrared = _blend(rows.infrared, rows.visible, self._scale)
        memories.map_with(lambda memory, some, new: memory.replace(some, new), clusters, PerModality(visible, infrared))
        return count


def _unit(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    return functional.normalize(rows, dim=1, eps=_SMALLEST_NORM)


def _blend(own: Float[Tensor, "rows dim"], other: Float[Tensor, "rows dim"], scale: float) -> Float[Tensor, "rows dim"]:
    # Unit rows stay as they are when nothing is mixed in; scaling them again would change their last bits.
    return other if scale == 0.0 else _unit(scale * own + (1.0 - scale) * other)


def _changed_rows(old: Float[Tensor, "rows dim"], new: Float[Tensor, "rows dim"]) -> Int64[Tensor, " changed"]:
    if old is new:
        return torch.empty(0, dtype=torch.int64)
    return (old != new).any(dim=1).nonzero().squeeze(1)
