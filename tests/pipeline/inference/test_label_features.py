"""`vireid label` on a file: a mapped one is not copied, and its labels do not depend on how it is stored."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from pipeline.errors import DataError
from pipeline.inference.label_features import LabelReport, label_file
from pipeline.runtime import arrays
from tests.reference.feature_sets import identity_features

ROWS = identity_features(400, 12, 4_096)
"""6.6 MB; the lists and all that follows take less than a third of that."""


def labelled(path: Path) -> LabelReport:
    return label_file(
        path, None, k1=10, k2=3, eps=0.6, min_samples=3, method="dbscan", neighbour_method="exact", device="cpu"
    )


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy held at a time during a call."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", ROWS)
    return tmp_path / "rows.npy"


def test_rows_of_length_one_in_a_npy_file_are_not_copied(mapped: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "longer.npy", 2 * ROWS)
    labelled(mapped)  # libraries are loaded and loops compiled
    assert allocated(lambda: labelled(mapped)) < ROWS.nbytes / 2
    # Scaled once: the same measure sees one copy.
    assert ROWS.nbytes < allocated(lambda: labelled(tmp_path / "longer.npy")) < 1.7 * ROWS.nbytes


def test_labels_are_those_of_any_other_file_of_the_same_rows(mapped: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", features=ROWS)
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(ROWS.reshape(-1)), ROWS.shape[1])
    pyarrow.parquet.write_table(pyarrow.table({"features": lists}), tmp_path / "rows.parquet")
    np.save(tmp_path / "columns.npy", np.asfortranarray(4 * ROWS.astype(np.float64)))
    expected = labelled(mapped).labelling.clustering.labels
    assert len(set(expected.tolist())) > 5
    for name in ("rows.npz", "rows.parquet", "columns.npy"):
        np.testing.assert_array_equal(labelled(tmp_path / name).labelling.clustering.labels, expected)


def test_a_copy_that_does_not_fit_is_refused_with_the_way_out(
    mapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "longer.npy", 2 * ROWS)
    np.save(tmp_path / "half.npy", ROWS.astype(np.float16))

    def full(claimed: int) -> None:
        if claimed:
            raise ValueError(f"needs {claimed} bytes, and 0 are free")

    for module in ("pipeline.evaluation.feature_files", "pipeline.inference.label_features"):
        monkeypatch.setattr(f"{module}.check_memory", full)
    monkeypatch.setattr(arrays, "check_memory", full)
    assert labelled(mapped).labelling.clustering.num_clusters > 5
    with pytest.raises(DataError, match=r"scaling 400 rows to length 1 needs 6553600 bytes") as caught:
        labelled(tmp_path / "longer.npy")
    assert "float32 rows of length 1" in caught.value.hint
    with pytest.raises(DataError, match=r"float16 \[400, 4096\], whose copy needs 6553600 bytes"):
        labelled(tmp_path / "half.npy")
