"""Bad features are refused with what is wrong about them, by every function that takes them."""

import numpy as np
import pytest

from clustering.rows import check_matrix, check_unit_rows
from tests.fresh_process import run_fresh


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(5, np.float32), "2-D array of float32, not 1-D of float32"),
        (np.zeros((2, 3, 4), np.float32), "not 3-D of float32"),
        (np.zeros((2, 3)), "not 2-D of float64"),
        (np.zeros((2, 3), np.int64), "not 2-D of int64"),
        (np.zeros((2, 3), np.float16), "not 2-D of float16"),
    ],
)
def test_other_arrays_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        check_matrix(features)


@pytest.mark.parametrize("shape", [(0, 8), (0, 0)])
def test_no_rows_are_fine(shape):
    check_unit_rows(np.empty(shape, np.float32))


def test_rows_without_columns_have_no_length():
    with pytest.raises(ValueError, match=r"row 0 has length 0, not 1 \(3 of 3 rows are bad\)"):
        check_unit_rows(np.empty((3, 0), np.float32))


def test_whoever_calls_without_type_checks_gets_the_same_message():
    # Under test the annotations are checked first; in a user's process they are not.
    script = """
import numpy as np
from clustering.labelling import label_images
from clustering.neighbours import nearest_neighbours
zero = np.eye(4, dtype=np.float32)
zero[2] = 0.0
infinite = np.eye(4, dtype=np.float32)
infinite[3, 3] = np.inf
for features in (np.zeros(5, np.float32), np.eye(4), np.eye(4, dtype=int), zero, infinite):
    for call in (label_images, lambda rows: nearest_neighbours(rows, 2)):
        try:
            call(features)
        except ValueError as error:
            print(error)
"""
    expected = [
        "features must be a 2-D array of float32, not 1-D of float32",
        "features must be a 2-D array of float32, not 2-D of float64",
        "features must be a 2-D array of float32, not 2-D of int64",
        "row 2 has length 0, not 1 (1 of 4 rows are bad)",
        "row 3 is not finite (1 of 4 rows are bad)",
    ]
    assert run_fresh(script).splitlines() == [line for line in expected for _ in range(2)]
