"""Similarities of whitened prototypes."""

import numpy as np
import pytest

from clustering.matching import mutual_nearest
from clustering.whitening import whitened_similarity
from tests.reference.feature_sets import gaussian_features, unit


def by_definition(visible: np.ndarray, infrared: np.ndarray, shrinkage: float) -> np.ndarray:
    """Cosines after multiplication by the inverse square root of the mixed covariance, in float64."""
    first, second = (rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0) for rows in (visible, infrared))
    covariance = (np.cov(first.T, bias=True) + np.cov(second.T, bias=True)) / 2
    width = len(covariance)
    directions = min(width, len(visible) + len(infrared) - 2)
    mixed = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / directions * np.eye(width)
    values, vectors = np.linalg.eigh(mixed)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return unit(first @ root) @ unit(second @ root).T


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [(30, 20), (5, 9), (2, 40)])
def test_similarities_are_those_of_the_definition_and_transpose(sizes, shrinkage):
    visible, infrared = gaussian_features(sizes[0], 16), gaussian_features(sizes[1], 16, seed=2)
    found = whitened_similarity(visible, infrared, shrinkage=shrinkage)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(visible, infrared, shrinkage), atol=1e-6)
    np.testing.assert_allclose(whitened_similarity(infrared, visible, shrinkage=shrinkage), found.T, atol=1e-6)


def test_a_rotation_of_both_sides_changes_nothing():
    generator = np.random.default_rng(1)
    visible, infrared = generator.normal(size=(12, 8)), generator.normal(size=(10, 8))
    rotation = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    found = whitened_similarity(unit(visible), unit(infrared))
    turned = whitened_similarity(unit(visible @ rotation), unit(infrared @ rotation))
    np.testing.assert_allclose(turned, found, atol=1e-5)


def test_people_are_paired_where_a_few_directions_hide_them():
    """Each person differs little; pose and light, different in each modality, differ much, in four directions."""
    generator = np.random.default_rng(3)
    people = 0.3 * generator.normal(size=(60, 64))
    strong = 0.25 * generator.normal(size=(4, 64))

    def seen(offset: float) -> np.ndarray:
        rows = people + generator.normal(size=(60, 4)) @ strong + 0.05 * generator.normal(size=(60, 64)) + offset
        return unit(rows).astype(np.float32)

    visible, infrared = seen(0.0), seen(0.5)

    def right(similarity: np.ndarray) -> float:
        return float((similarity.argmax(axis=1) == np.arange(60)).mean())

    assert right(visible @ infrared.T) < 0.3
    assert right(whitened_similarity(visible, infrared)) > 0.9
    assert len(mutual_nearest(whitened_similarity(visible, infrared))[0]) > 54


def test_the_number_of_clusters_changes_little():
    """Similarities of the same people, among few and among many others."""
    generator = np.random.default_rng(5)
    people, shared = generator.normal(size=(240, 256)), generator.normal(size=256)
    visible, infrared = (unit(people + generator.normal(size=people.shape) + shared).astype(np.float32) for _ in "vi")
    few, many = (np.diagonal(whitened_similarity(visible[:number], infrared[:number])).mean() for number in (24, 240))
    assert few > 0.5 * many  # 0.2 times, if the trace were spread over all directions


def test_sides_without_clusters_or_differences():
    rows = gaussian_features(3, 8)
    assert whitened_similarity(rows[:0], rows).shape == (0, 3)
    assert whitened_similarity(rows, rows[:0]).shape == (3, 0)
    assert not whitened_similarity(rows[:1], rows).any()  # a single cluster is its modality's mean
    assert not whitened_similarity(rows[:1], rows[1:2]).any()
    alike = np.repeat(rows[:1], 5, axis=0)  # collapsed features: what differs is rounding
    assert np.isfinite(whitened_similarity(alike, alike[:4])).all()


@pytest.mark.parametrize("shrinkage", [0.0, -0.5, 1.1, float("nan")])
def test_a_bad_shrinkage_is_refused(shrinkage):
    with pytest.raises(ValueError, match="shrinkage must be above 0 and at most 1"):
        whitened_similarity(gaussian_features(3, 8), gaussian_features(3, 8), shrinkage=shrinkage)


def test_rows_that_are_not_of_unit_length_are_refused():
    with pytest.raises(ValueError, match="row 0 has length 2, not 1"):
        whitened_similarity(2 * np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
