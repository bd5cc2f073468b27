"""Similarities without what clusters have to many."""

import numpy as np
import pytest

from clustering.local_scaling import locally_scaled
from clustering.matching import mutual_nearest
from tests.reference.feature_sets import gaussian_features, unit


def by_definition(similarity: np.ndarray, neighbours: int) -> np.ndarray:
    """In float64, one pair after the other."""
    values = similarity.astype(np.float64)
    found = np.empty_like(values)
    for visible, infrared in np.ndindex(values.shape):
        row, column = (sorted(line, reverse=True)[:neighbours] for line in (values[visible], values[:, infrared]))
        found[visible, infrared] = values[visible, infrared] - sum(row) / len(row) / 2 - sum(column) / len(column) / 2
    return found


@pytest.mark.parametrize("neighbours", [1, 3, 50])
@pytest.mark.parametrize("sizes", [(12, 9), (2, 30), (1, 1)])
def test_similarities_are_those_of_the_definition_and_transpose(sizes, neighbours):
    similarity = gaussian_features(sizes[0], 16) @ gaussian_features(sizes[1], 16, seed=2).T
    found = locally_scaled(similarity, neighbours=neighbours)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(similarity, neighbours), atol=1e-6)
    np.testing.assert_array_equal(locally_scaled(similarity.T, neighbours=neighbours), found.T)


def test_a_cluster_that_is_near_to_all_takes_nobodys_partner():
    """The last infrared cluster is each visible one's nearest; without scaling only one pair is mutual."""
    generator = np.random.default_rng(7)
    people, shared = generator.normal(size=(20, 64)), 6 * generator.normal(size=64)
    visible = unit(people + shared)
    infrared = unit(np.vstack([people + 0.4 * generator.normal(size=people.shape) + 0.5 * shared, shared]))
    similarity = (visible @ infrared.T).astype(np.float32)
    assert (similarity.argmax(axis=1) == 20).all()
    rows, columns = mutual_nearest(locally_scaled(similarity))
    assert len(rows) == 20
    assert np.array_equal(rows, columns)


def test_a_number_added_to_all_similarities_changes_nothing():
    similarity = gaussian_features(12, 16) @ gaussian_features(9, 16, seed=2).T
    np.testing.assert_allclose(locally_scaled(similarity + 0.5), locally_scaled(similarity), atol=1e-6)


def test_sides_without_clusters_and_a_number_that_is_too_small():
    empty = np.empty((0, 3), np.float32)
    assert locally_scaled(empty).shape == (0, 3)
    assert locally_scaled(empty.T).shape == (3, 0)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        locally_scaled(np.ones((2, 2), np.float32), neighbours=0)
