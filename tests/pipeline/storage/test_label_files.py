"""Label files: what is written is read back; earlier ones stay readable, damaged ones are one error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clustering.dbscan import Clustering
from clustering.quality import ScoredPairs
from models.modality import PerModality
from pipeline.errors import CheckpointError
from pipeline.storage.label_files import RoundLabels, read_labels
from pipeline.storage.run_folder import RunFolder

NAMES = ('cam1/"a" & <b>.png', "cam1/ü\udcff.jpg", "cam1/c.jpg")


def labels_of(visible: list[int], infrared: list[int]) -> RoundLabels:
    """Labels as training returns them: with pairs, without paths."""
    labels = PerModality(np.array(visible), np.array(infrared))
    pairs = ScoredPairs(np.array([0]), np.array([0]), np.float32([0.5]), np.float32([0.25]), np.float32([np.inf]))
    return RoundLabels(
        labels.map(lambda some: Clustering(some, some >= 0)),
        labels.map(lambda some: np.linspace(0.9, 0.1, len(some), dtype=np.float32)),
        pairs,
    )


def write(path: Path, labels: RoundLabels, number: int = 1) -> Path:
    with RunFolder.open(path, {}, "aaaa") as run:
        return run.save_labels(number, labels)


@pytest.fixture
def complete() -> RoundLabels:
    return replace(labels_of([0, -1, 1], [0, 0]), paths=PerModality(NAMES, ("cam3/a.jpg", "cam3/b.jpg")))


def test_what_is_written_is_read_back_whatever_the_names(tmp_path: Path, complete: RoundLabels) -> None:
    write(tmp_path, complete)
    found = read_labels(tmp_path, 1)
    assert found is not None and found.paths == complete.paths
    for name, array in complete.to_arrays().items():
        np.testing.assert_array_equal(found.to_arrays()[name], array)
    assert read_labels(tmp_path, 2) is None


def test_a_file_of_an_earlier_version_has_labels_and_nothing_else(tmp_path: Path, complete: RoundLabels) -> None:
    write(tmp_path, RoundLabels(complete.clusterings))
    found = read_labels(tmp_path, 1)
    assert found is not None
    assert found.labels.visible.tolist() == [0, -1, 1]
    assert (found.similarity, found.pairs, found.paths) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visible_labels": None}, "visible_labels"),
        ({"infrared_paths": np.array(["a"])}, r"infrared_paths.*\[1\]"),
        ({"visible_core": np.array([1, 2, 3])}, "visible_core"),
        ({"pair_infrared": np.array([7])}, "pair_infrared"),
        ({"pair_similarity": np.float32([1, 2])}, "differ in length"),
    ],
)
def test_another_content_is_one_error(
    tmp_path: Path, complete: RoundLabels, changes: dict[str, np.ndarray | None], message: str
) -> None:
    path = write(tmp_path, complete)
    arrays = complete.to_arrays() | changes
    np.savez(path, **{name: one for name, one in arrays.items() if one is not None})
    with pytest.raises(CheckpointError, match=message):
        read_labels(tmp_path, 1)


def test_a_truncated_file_is_one_error(tmp_path: Path, complete: RoundLabels) -> None:
    path = write(tmp_path, complete)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"round-001\.npz"):
        read_labels(tmp_path, 1)
