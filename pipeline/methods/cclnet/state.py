"""State of CCLNet between rounds, besides weights: pseudo-labels, and the text prototypes learned on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from clustering.dbscan import Clustering
from models.modality import Modality, PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.runs.run import Run


@dataclass(frozen=True, slots=True)
class TextPrototypes:
    """Text prototypes of one modality, one a cluster, not normalised, and the pseudo-labels that they were learned on.

    `context` are the learned context tokens, kept for a warm start. `partners` are the clusters of the other modality
    that were their partners then, -1 for none, and `confidence` weighs these pairs, in [0, 1].
    """

    features: Float[Tensor, "clusters text"]
    labels: Int64[np.ndarray, " n"]
    context: Float[Tensor, "clusters words width"]
    partners: Int64[np.ndarray, " clusters"]
    confidence: Float32[np.ndarray, " clusters"]


@dataclass(frozen=True, slots=True, eq=False)
class DescribedClusters:
    """The clusters that prompts are learned on, and their pairs: entry i of one vector with entry i of the other.

    `confidence` weighs each pair, in [0, 1].
    """

    clusterings: PerModality[Clustering]
    pairs: PerModality[Int64[np.ndarray, " pairs"]]
    confidence: Float32[np.ndarray, " pairs"]

    @property
    def labels(self) -> PerModality[Int64[np.ndarray, " _"]]:
        """The cluster of each training image, or `OUTLIER`."""
        return self.clusterings.map(lambda one: one.labels)


@dataclass(slots=True)
class CclnetState:
    """Labels and text prototypes after the last finished round.

    `clusters` are the last usable ones, `exported` those that prompts are first learned on.
    """

    clusters: PerModality[Clustering] | None = None
    exported: DescribedClusters | None = None
    text: PerModality[TextPrototypes] | None = None

    def pack(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        return {
            "clusters": _pack(self.clusters),
            "exported": None if self.exported is None else _pack(self.exported.clusterings),
            "exported_pairs": None if self.exported is None else _pack_pairs(self.exported),
            "text": pack_texts(self.text),
        }

    def fill(self, packed: Mapping[str, Any], device: torch.device) -> None:
        """Restore packed values, text prototypes on a device."""
        self.clusters = _unpack(packed["clusters"], _unpack_labels)
        exported = _unpack(packed["exported"], _unpack_labels)
        self.exported = None if exported is None else DescribedClusters(exported, *_unpack_pairs(packed))
        self.text = unpack_texts(packed["text"], device)


CclnetRun = Run[CclnetConfig, CclnetState]


def pack_texts(texts: PerModality[TextPrototypes] | None) -> dict[str, Any] | None:
    """Tensors on the CPU, for a checkpoint or for other ranks."""
    return _pack(texts)


def unpack_texts(packed: Mapping[str, Any] | None, device: torch.device) -> PerModality[TextPrototypes] | None:
    """Inverse of `pack_texts`, on a device."""
    return _unpack(packed, lambda one: _unpack_text(one, device))


def _pack(pair: PerModality[Any] | None) -> dict[str, Any] | None:
    return None if pair is None else {modality.value: _pack_one(value) for modality, value in pair.items()}


def _unpack(packed: Mapping[str, Any] | None, unpack_one: Callable[[Any], Any]) -> PerModality[Any] | None:
    return None if packed is None else PerModality.build(lambda modality: unpack_one(packed[modality.value]))


def _pack_pairs(clusters: DescribedClusters) -> dict[str, Tensor]:
    sides = {modality.value: torch.from_numpy(side) for modality, side in clusters.pairs.items()}
    return sides | {"confidence": torch.from_numpy(clusters.confidence)}


def _unpack_pairs(
    packed: Mapping[str, Any],
) -> tuple[PerModality[Int64[np.ndarray, " pairs"]], Float32[np.ndarray, " pairs"]]:
    """Checkpoints of earlier versions have no pairs, or none of the confidences."""
    pairs = packed.get("exported_pairs") or dict.fromkeys(Modality, torch.empty(0, dtype=torch.int64))
    sides = PerModality.build(lambda modality: pairs[modality.value].numpy())
    confidence = pairs.get("confidence", torch.ones(len(sides.visible)))
    return sides, confidence.numpy()


def _pack_one(value: Clustering | TextPrototypes) -> dict[str, Tensor]:
    arrays = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: one.cpu() if isinstance(one, Tensor) else torch.from_numpy(one) for name, one in arrays.items()}


def _unpack_labels(packed: Mapping[str, Tensor]) -> Clustering:
    return Clustering(**{name: tensor.numpy() for name, tensor in packed.items()})


def _unpack_text(packed: Mapping[str, Tensor], device: torch.device) -> TextPrototypes:
    features = packed["features"].to(device)
    # Checkpoints of earlier versions have no partners, or none of the confidences.
    partners = packed["partners"].numpy() if "partners" in packed else np.full(len(features), -1)
    confidence = packed["confidence"].numpy() if "confidence" in packed else np.ones(len(features), np.float32)
    return TextPrototypes(features, packed["labels"].numpy(), packed["context"].to(device), partners, confidence)
