"""`vireid label` as its users call it: labels in a file, a table or JSON on stdout, wrong input as one error."""

import json
from pathlib import Path

import numpy as np
import pytest

from clustering.labelling import label_images
from tests.flows.command_line import Call
from tests.fresh_process import run_fresh
from tests.reference.feature_sets import identity_features

ROWS = identity_features(200, 5, 32)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    path = tmp_path / "features.npy"
    np.save(path, ROWS * 3)  # of any length: rows are scaled to 1
    return path


def test_labels_are_those_of_the_engine(vireid: Call, features: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "labels.npy"
    options = ("--k1", "10", "--k2", "3", "--eps", "0.55", "--min-samples", "3")
    code, printed, err = vireid("label", str(features), *options, "-o", str(out), "--json")
    assert code == 0, err
    expected = label_images(ROWS, k1=10, k2=3, eps=0.55, min_samples=3)
    labels = np.load(out, allow_pickle=False)
    assert labels.dtype == np.int64
    assert np.array_equal(labels, expected.clustering.labels)
    found = json.loads(printed)
    assert (found["images"], found["clusters"], found["outliers"]) == (
        200,
        expected.clustering.num_clusters,
        expected.clustering.num_outliers,
    )
    assert found["edges"] == expected.num_edges
    assert set(found["seconds"]) == {"neighbours", "graph", "dbscan"}
    assert found["peak_bytes"] > 2**20
    assert [point["eps"] for point in found["eps_curve"]] == [0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70]
    assert found["recall"] is None


def test_the_table_shows_other_values_of_eps(vireid: Call, features: Path) -> None:
    code, printed, _ = vireid("label", str(features), "--k1", "10", "--k2", "3")
    assert code == 0
    assert "200 images" in printed and "0.70" in printed


@pytest.mark.parametrize(
    ("option", "value"), [("--neighbours", "hnsw"), ("--neighbours", "ivf"), ("--method", "components")]
)
def test_other_searches_and_methods_are_a_word_away(vireid: Call, features: Path, option: str, value: str) -> None:
    code, printed, err = vireid("label", str(features), "--k1", "10", "--k2", "3", option, value, "--json")
    assert code == 0, err
    found = json.loads(printed)
    assert found["clusters"] > 0
    assert (found["recall"] is None) == (option == "--method")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3, 4), dtype=np.float32), "row 0 is all zeros"),
        (np.array([[1, 0], [np.nan, 1]], dtype=np.float32), "row 1 holds a value that is not finite"),
        (np.array([[1, 0], [np.inf, 1]], dtype=np.float32), "row 1 holds a value that is not finite"),
        (np.ones(5, dtype=np.float32), "float32 [5]"),
        (np.ones((2, 2), dtype=np.int64), "int64 [2, 2]"),
        (np.array([["a", "b"]]), "not a table"),
        (np.zeros((0, 4), np.float32), "float32 [0, 4], not a table"),
    ],
)
def test_rows_that_cannot_be_clustered_are_named(vireid: Call, tmp_path: Path, rows: np.ndarray, message: str) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, rows)
    code, printed, err = vireid("label", str(path), "-o", str(tmp_path / "labels.npy"))
    assert (code, printed) == (1, "")
    assert message in err and "hint:" in err
    assert not (tmp_path / "labels.npy").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--eps", "0"), "eps is 0"),
        (("--eps", "1"), "eps is 1"),
        (("--k1", "5", "--k2", "6"), "k2 must be from 1 to k1"),
        (("--method", "kmeans"), "'kmeans'"),
        (("--neighbours", "lsh"), "'lsh'"),
        (("--device", "abacus"), "'abacus' is not a device"),
    ],
)
def test_a_value_out_of_range_is_an_error(vireid: Call, features: Path, options: tuple[str, ...], message: str) -> None:
    code, printed, err = vireid("label", str(features), *options)
    assert (code, printed) == (1, "")
    assert message in err and "hint:" in err


def test_a_file_that_is_missing_or_cut_short_is_an_error(vireid: Call, features: Path, tmp_path: Path) -> None:
    content = features.read_bytes()
    features.write_bytes(content[: len(content) // 2])
    code, _, err = vireid("label", str(features))
    assert code == 1
    assert "is truncated" in err
    code, _, err = vireid("label", str(tmp_path / "none.npy"))
    assert code == 1
    assert "there is no file" in err


@pytest.mark.parametrize("num_images", [1, 3])
def test_few_images_are_no_error(vireid: Call, tmp_path: Path, num_images: int) -> None:
    path = tmp_path / "few.npy"
    np.save(path, ROWS[:num_images])
    code, printed, err = vireid("label", str(path), "--json")
    assert code == 0, err
    assert json.loads(printed)["images"] == num_images


def test_torch_is_not_needed(features: Path) -> None:
    program = (
        "import sys\n"
        "from flows.cli import app as cli\n"
        f"sys.argv = ['vireid', 'label', {str(features)!r}, '--json']\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    run_fresh(program)
