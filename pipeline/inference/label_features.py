"""Cluster a feature file of any program; write the labels and their statistics."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Float, Float32

from clustering.labelling import Labelling, label_images
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.feature_files import read_vectors
from pipeline.evaluation.ranking import row_lengths
from pipeline.runtime.arrays import check_memory
from pipeline.runtime.environment import peak_resident_bytes
from pipeline.runtime.outputs import LABELS, write_output

UNIT_TOLERANCE = 1e-6
"""Rows of float32 are as close as this to length 1 once they are scaled: scaling them again moves them by rounding."""


@dataclass(frozen=True, slots=True)
class LabelReport:
    """A labelling of a feature file, and the peak memory of the process."""

    labelling: Labelling
    peak_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        found = self.labelling
        return {
            "images": len(found.clustering.labels),
            "clusters": found.clustering.num_clusters,
            "outliers": found.clustering.num_outliers,
            "edges": found.num_edges,
            "k1": found.k1,
            "k2": found.k2,
            "search": found.search,
            "recall": found.recall,
            "seconds": found.seconds,
            "peak_bytes": self.peak_bytes,
            "eps_curve": [asdict(point) for point in found.curve],
        }


def label_file(
    path: Path,
    out: Path | None,
    *,
    k1: int,
    k2: int,
    eps: float,
    min_samples: int,
    method: Literal["dbscan", "components", "louvain"],
    neighbour_method: Literal["exact", "ivf", "hnsw"],
    device: str,
) -> LabelReport:
    """Cluster the rows of a file, scaled to length 1; parameters as in `label_images`.

    * `path`: Features [n, d] of float16, float32 or float64: a `.npy` file, or `features` of `.npz` or Parquet.
    * `out`: File for the labels, int64 [n], -1 for outliers; None writes nothing.

    Raises:
        ConfigError: A parameter is out of range.
        DataError: The file is missing, empty, damaged or of another kind, or a row has no direction.

    Cost: nothing for the features of a `.npy` file of float32 rows of length 1, which is mapped: it may be larger than
    the memory. Otherwise the features once, and once more where they are scaled. See also `label_images`.
    """
    if not 0 < eps < 1:
        raise ConfigError(
            f"eps is {eps}, not between 0 and 1", hint="0.6 is the published value; the eps curve shows other values"
        )
    rows = _unit_rows(read_vectors(path), path)
    try:
        labelling = label_images(
            rows,
            k1=k1,
            k2=k2,
            eps=eps,
            min_samples=min_samples,
            method=method,
            neighbour_method=neighbour_method,
            device=device,
        )
    except ValueError as error:
        raise ConfigError(str(error), hint="`vireid label --help` explains each value") from error
    if out is not None:
        labels = labelling.clustering.labels

        def write(file: BinaryIO) -> None:
            np.save(file, labels, allow_pickle=False)

        write_output(out, write, LABELS, "--out")
    return LabelReport(labelling, peak_resident_bytes())


def _unit_rows(vectors: Float[np.ndarray, "n d"], path: Path) -> Float32[np.ndarray, "n d"]:
    """Rows scaled to length 1 in float32; float32 rows that have it already are not copied."""
    lengths = row_lengths(vectors, path.name)
    if vectors.dtype == np.float32 and np.abs(lengths - 1).max() <= UNIT_TOLERANCE:
        return vectors
    try:
        check_memory(vectors.size * np.dtype(np.float32).itemsize)
    except ValueError as error:
        raise DataError(
            f"{path}: scaling {len(vectors):,} rows to length 1 {error}",
            hint="write them as a .npy file of float32 rows of length 1, which is read in place",
        ) from error
    units = np.empty(vectors.shape, np.float32)
    np.divide(vectors, lengths[:, None].astype(vectors.dtype), out=units, casting="same_kind")
    return units
