"""Label files: the clusters of a round, which images they hold, and which of them are pairs. Read without torch.

Only the record has paths: training gets none, because they contain identities.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from clustering.dbscan import OUTLIER, Clustering
from clustering.quality import ScoredPairs
from models.modality import Modality, PerModality
from pipeline.errors import CheckpointError, DataError
from pipeline.runtime.arrays import Array, read_arrays
from pipeline.storage.layout import labels_path

_OF_MODALITY = ("labels", "core", "similarity", "paths")
_PAIRS = tuple(field.name for field in fields(ScoredPairs))
_ARRAYS = [f"{modality}_{name}" for modality in Modality for name in _OF_MODALITY] + [f"pair_{name}" for name in _PAIRS]
_HINT = "take the file from a copy of the run, or look at another round with --round"


@dataclass(frozen=True, slots=True, eq=False)
class RoundLabels:
    """The clusters of a round, in the order of the training images, which is the same in every round.

    Attributes:
        similarity: Of each image to its cluster's prototype; of an outlier to the most similar prototype.
        pairs: Clusters that were taken for the same person.
        paths: Of each image, relative to the data set's folder. None, as `similarity` and `pairs`, in files of earlier
            versions, and before the record adds them.
    """

    clusterings: PerModality[Clustering]
    similarity: PerModality[Float32[np.ndarray, " _"]] | None = None
    pairs: ScoredPairs | None = None
    paths: PerModality[tuple[str, ...]] | None = None

    @property
    def labels(self) -> PerModality[Int64[np.ndarray, " _"]]:
        """The cluster of each image, or `OUTLIER`."""
        return self.clusterings.map(lambda one: one.labels)

    def to_arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The arrays of a label file by their names."""
        found: dict[str, Shaped[np.ndarray, "..."]] = {}
        for modality, one in self.clusterings.items():
            found |= {f"{modality}_labels": one.labels, f"{modality}_core": one.core}
            if self.similarity is not None:
                found[f"{modality}_similarity"] = self.similarity[modality]
            if self.paths is not None:
                found[f"{modality}_paths"] = np.array(self.paths[modality])
        if self.pairs is not None:
            found |= {f"pair_{name}": getattr(self.pairs, name) for name in _PAIRS}
        return found


def read_labels(run: Path, number: int) -> RoundLabels | None:
    """The label file of a round; None without one.

    Raises:
        CheckpointError: The file is damaged or holds something else.
    """
    path = labels_path(run, number)
    if not path.is_file():
        return None
    try:
        arrays, _ = read_arrays(path, _ARRAYS, _HINT)
        return _from_arrays(arrays)
    except DataError as error:
        raise CheckpointError(error.message, hint=_HINT) from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no label file of a run: {error}", hint=_HINT) from error


def _from_arrays(arrays: dict[str, Array]) -> RoundLabels:
    def of(name: str, kinds: str) -> PerModality[Array] | None:
        if f"{Modality.VISIBLE}_{name}" not in arrays:
            return None
        found = PerModality.build(lambda modality: arrays[f"{modality}_{name}"])
        for modality, one in found.items():
            if one.dtype.kind not in kinds or one.shape != arrays[f"{modality}_labels"].shape or one.ndim != 1:
                raise ValueError(f"`{modality}_{name}` is {one.dtype} {list(one.shape)}")
        return found

    labels, core, similarity, paths = of("labels", "i"), of("core", "b"), of("similarity", "f"), of("paths", "U")
    if labels is None or core is None:
        raise KeyError("visible_labels, visible_core")
    labels = labels.map(lambda some: some.astype(np.int64))
    return RoundLabels(
        labels.map_with(lambda some, flags: Clustering(some, flags), core),
        None if similarity is None else similarity.map(lambda some: some.astype(np.float32)),
        _pairs(arrays, labels) if f"pair_{_PAIRS[0]}" in arrays else None,
        None if paths is None else paths.map(lambda some: tuple(some.tolist())),
    )


def _pairs(arrays: dict[str, Array], labels: PerModality[Int64[np.ndarray, " _"]]) -> ScoredPairs:
    columns = {name: arrays[f"pair_{name}"] for name in _PAIRS}
    clusters = labels.map(lambda some: int(some.max(initial=OUTLIER)) + 1)
    for modality, count in clusters.items():
        side = columns[str(modality)]
        if side.dtype.kind != "i" or side.ndim != 1 or np.any((side < 0) | (side >= count)):
            raise ValueError(f"`pair_{modality}` does not name {count} clusters")
    if len({one.shape for one in columns.values()}) > 1:
        raise ValueError("the arrays of pairs differ in length")
    sides = {str(modality): columns[str(modality)].astype(np.int64) for modality in Modality}
    return ScoredPairs(**sides, **{name: columns[name].astype(np.float32) for name in _PAIRS if name not in sides})
