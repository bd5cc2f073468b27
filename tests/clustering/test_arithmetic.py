"""Inner products and weights are the same bits from compiled loops and from tensors."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from clustering.arithmetic_torch import powers, row_dots, softmax_weights
from clustering.jaccard_kernels import POWER_SCALE, fill_weights, power
from clustering.neighbours_kernels import LANES, row_dot
from tests.reference.feature_sets import gaussian_features

SIMILARITIES = np.concatenate([np.random.default_rng(3).uniform(-1, 1, 5_000), [-1.002, -1.0, 0.0, 0.5, 1.0, 1.002]])


def by_kernel(rows, first, second):
    lanes = np.empty(LANES)
    return np.array([row_dot(rows, one, two, lanes) for one, two in zip(first, second, strict=True)])


@pytest.mark.parametrize("width", [1, 7, 127, 128, 129, 300, 2_048])
def test_inner_products_are_equal_to_the_last_bit(width):
    rows = gaussian_features(40, width)
    first, second = np.random.default_rng(4).integers(40, size=(2, 200))
    on_device = row_dots(torch.tensor(rows), torch.tensor(first), torch.tensor(second)).numpy()
    found = by_kernel(rows, first, second)
    assert np.array_equal(found, on_device)
    products = rows[first].astype(np.float64) * rows[second].astype(np.float64)  # 24 by 24 bits: exact
    np.testing.assert_allclose(found, [math.fsum(row) for row in products], atol=1e-15, rtol=0)


def test_inner_products_do_not_depend_on_where_rows_lie_or_which_comes_first():
    rows = gaussian_features(30, 301)  # an odd width: every other row begins off a vector's boundary
    copies = np.concatenate([rows, rows])
    first, second = np.random.default_rng(5).integers(30, size=(2, 100))
    expected = by_kernel(copies, first, second)
    for one, two in ((first + 30, second), (second, first), (second + 30, first + 30)):
        assert np.array_equal(by_kernel(copies, one, two), expected)
        assert np.array_equal(row_dots(torch.tensor(copies), torch.tensor(one), torch.tensor(two)).numpy(), expected)


def test_the_exponential_is_right_to_the_last_of_its_forty_bits():
    for similarity in SIMILARITIES:
        assert power(similarity) / POWER_SCALE == pytest.approx(math.exp(2 * similarity - 2), abs=1.01 / POWER_SCALE)
    assert power(1.0) == POWER_SCALE  # exp(0) = 1


def test_exponentials_are_equal_to_the_last_bit():
    on_device = powers(torch.tensor(SIMILARITIES))
    assert on_device.tolist() == [power(similarity) for similarity in SIMILARITIES]


def test_what_rounding_leaves_over_goes_to_the_first_of_the_largest():
    # 2 : 5 : 5 : 1 of 100 parts is 15.4, 38.5, 38.5, 7.7. Rounded 15 + 38 + 38 + 8 = 99: the first 38 gets one more.
    row = np.zeros(4, np.int32)
    fill_weights(np.array([2, 5, 5, 1]) << 30, 100, row)
    assert row.tolist() == [15, 39, 38, 8]


def test_a_member_of_next_to_no_weight_keeps_one_part():
    # 1 : 100,000 of 100 parts is 0.001 and 99.999. The small one gets 1, the large one gives it up.
    row = np.zeros(2, np.int32)
    fill_weights(np.array([1, 100_000]), 100, row)
    assert row.tolist() == [1, 99]


def test_weights_are_equal_to_the_last_part():
    generator = np.random.default_rng(6)
    sizes = generator.integers(1, 60, size=300)
    starts = np.concatenate([[0], sizes.cumsum()])
    similarity = generator.uniform(-1, 1, starts[-1]).round(2)  # so that the largest are tied now and then
    row_powers = np.array([power(value) for value in similarity])
    unit = (1 << 30) // 6
    expected = np.zeros(starts[-1], np.int32)
    for start, stop in pairwise(starts):
        fill_weights(row_powers[start:stop], unit, expected[start:stop])
    rows = torch.tensor(np.repeat(np.arange(300), sizes))
    found = softmax_weights(torch.tensor(row_powers), rows, torch.tensor(starts), unit)
    assert np.array_equal(found.numpy(), expected)
    assert np.all(np.add.reduceat(expected, starts[:-1]) == unit)
