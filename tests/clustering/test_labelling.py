"""Features in, labels out: equal to scikit-learn on the dense definition, at any edge."""

import math

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from clustering.dbscan import OUTLIER, dbscan
from clustering.labelling import CURVE_EPS, label_images
from clustering.neighbours import nearest_neighbours
from tests.clustering.graphs import jaccard_graph
from tests.fresh_process import run_fresh
from tests.reference.clustering import jaccard_distances
from tests.reference.feature_sets import (
    blob_features,
    copied_features,
    gaussian_features,
    identity_features,
    unit,
    untrained_features,
)

SETS = {
    "people": identity_features(600, 14, 64),
    "no structure": gaussian_features(300, 16),
    "untrained network": untrained_features(300, 32),
    "one blob": blob_features(300, 32),
    "each image fifty times": copied_features(6, 50, 16),
    "fewer images than k1": identity_features(20, 2, 32),
}


def assert_labels_are_those_of_scikit_learn(features, k1, k2):
    # To nine decimals: images that share four of six neighbours' rows have d = 1/2, which float64 misses by a rounding.
    distances = jaccard_distances(features, min(k1, len(features)), k2).round(9)
    neighbours = nearest_neighbours(features, k1)
    graph = jaccard_graph(features, neighbours, k1=k1, k2=k2, eps=0.7)
    for eps in (0.3, 0.5, 0.6, 0.7):
        for min_samples in (2, 4, 6):
            fitted = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances)
            found = dbscan(graph, eps, min_samples)
            assert np.array_equal(found.labels, fitted.labels_), (eps, min_samples)
            assert np.array_equal(np.flatnonzero(found.core), fitted.core_sample_indices_), (eps, min_samples)
    whole = label_images(features, k1=k1, k2=k2, eps=eps, min_samples=min_samples).clustering
    assert np.array_equal(whole.labels, found.labels)
    assert np.array_equal(whole.core, found.core)


@pytest.mark.parametrize("features", SETS.values(), ids=SETS.keys())
@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (10, 6), (30, 1)])
def test_labels_are_those_of_scikit_learn_on_the_dense_definition(features, k1, k2):
    assert_labels_are_those_of_scikit_learn(features, k1, k2)


@pytest.mark.parametrize(
    ("k1", "k2"), [(30, 6), pytest.param(10, 6, marks=pytest.mark.slow), pytest.param(30, 1, marks=pytest.mark.slow)]
)
def test_labels_of_two_thousand_images_are_those_of_scikit_learn(k1, k2):
    assert_labels_are_those_of_scikit_learn(identity_features(2_000, 42, 128), k1, k2)


def test_the_verification_set_has_the_clusters_and_outliers_that_it_was_made_for():
    found = label_images(identity_features(2_000, 42, 128)).clustering
    assert 40 <= found.num_clusters <= 48
    assert 0.02 <= found.outlier_share <= 0.13


def test_the_order_of_images_moves_neither_core_images_nor_outliers():
    features = identity_features(800, 20, 64)
    order = np.random.default_rng(3).permutation(len(features))
    before, after = label_images(features).clustering, label_images(features[order]).clustering
    assert np.array_equal(after.core, before.core[order])
    assert np.array_equal(after.labels == OUTLIER, before.labels[order] == OUTLIER)


def test_copies_are_in_one_cluster():
    # Twelve copies each: no image but its copies comes before the thirteenth place, and all twelve name each other.
    features = np.repeat(gaussian_features(30, 64), 12, axis=0)
    found = label_images(features, k1=12, k2=6, min_samples=4).clustering
    assert found.labels.tolist() == np.repeat(np.arange(30), 12).tolist()


def test_the_number_of_threads_does_not_change_the_labels(monkeypatch):
    features = SETS["people"]
    several = label_images(features)
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: 1)
    one = label_images(features)
    assert np.array_equal(one.clustering.labels, several.clustering.labels)
    assert (one.num_edges, one.curve) == (several.num_edges, several.curve)


def test_the_curve_is_what_separate_runs_give():
    features = SETS["people"]
    curve = label_images(features, eps=0.3).curve
    assert tuple(point.eps for point in curve) == CURVE_EPS
    for point in curve:
        alone = label_images(features, eps=point.eps).clustering
        assert (point.clusters, point.outlier_share) == (alone.num_clusters, alone.outlier_share)
        assert point.largest_share == alone.largest_share


def test_a_radius_beyond_the_curve_is_joined_as_far_as_it_reaches():
    features = SETS["people"]
    wide = label_images(features, eps=0.9)
    expected = DBSCAN(eps=0.9, min_samples=4, metric="precomputed").fit(jaccard_distances(features, 30, 6))
    assert np.array_equal(wide.clustering.labels, expected.labels_)
    assert wide.curve == label_images(features, eps=0.5).curve


def test_edges_and_quantiles_are_those_of_the_dense_distances():
    features = SETS["people"]
    distances = jaccard_distances(features, 30, 6)
    found = label_images(features, eps=0.5)
    assert found.num_edges == np.count_nonzero(np.triu(distances <= 0.5, k=1))
    ranks = nearest_neighbours(features, 30).ranks
    listed = np.take_along_axis(distances, ranks[:, 1:].astype(np.int64), axis=1)
    expected = dict(zip(("p01", "p05", "p50"), np.quantile(listed, (0.01, 0.05, 0.5)), strict=True))
    assert found.distance_quantiles == pytest.approx(expected, abs=1e-6)


def test_the_most_wanted_image_is_counted():
    # Image 0 is the mean of five directions at right angles: with k1 = 2 each of the five lists itself and image 0,
    # which lists itself and, by index, image 1. Image 0 is in all six lists, image 1 in two, the others in one.
    rows = unit(np.vstack([np.ones(5), np.eye(5)]))
    assert label_images(rows, k1=2, k2=1).max_in_degree == 6


def test_neighbours_beyond_all_images_are_clamped_and_reported():
    found = label_images(SETS["fewer images than k1"], k1=30, k2=25)
    assert (found.k1, found.k2) == (20, 20)
    assert (label_images(SETS["people"]).k1, label_images(SETS["people"]).k2) == (30, 6)


@pytest.mark.parametrize("k1_counts_self", [True, False])
def test_no_images_give_no_labels(k1_counts_self):
    found = label_images(np.empty((0, 8), dtype=np.float32), k1_counts_self=k1_counts_self)
    assert len(found.clustering.labels) == found.clustering.num_clusters == found.num_edges == found.max_in_degree == 0
    assert found.distance_quantiles is None
    assert all((point.clusters, point.outlier_share, point.largest_share) == (0, 0.0, 0.0) for point in found.curve)


@pytest.mark.parametrize("k1_counts_self", [True, False])
def test_a_single_image_is_an_outlier_unless_one_sample_is_enough(k1_counts_self):
    row = np.eye(1, 8, dtype=np.float32)
    assert label_images(row, k1_counts_self=k1_counts_self).clustering.labels.tolist() == [OUTLIER]
    assert label_images(row, min_samples=1, k1_counts_self=k1_counts_self).clustering.labels.tolist() == [0]
    assert label_images(row).distance_quantiles is None


def test_no_structure_gives_no_cluster():
    found = label_images(gaussian_features(1_000, 64))
    assert found.clustering.num_clusters == 0
    assert found.clustering.outlier_share == 1.0
    # What to tell the user: at eps 0.6 nothing is near, half of the listed images are further than 0.8.
    assert found.distance_quantiles["p01"] > 0.6
    assert found.distance_quantiles["p50"] > 0.8


def test_counting_the_image_itself_changes_the_distance():
    features = SETS["people"]
    assert label_images(features).num_edges != label_images(features, k1_counts_self=False).num_edges


def test_rows_that_were_not_normalised_are_refused():
    rows = identity_features(50, 3, 16)
    rows[7] *= 5.0  # a hub: everybody's neighbour by inner product
    with pytest.raises(ValueError, match=r"row 7 has length 5, not 1 \(1 of 50 rows are bad\)"):
        label_images(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k2": 31}, "k2 must be from 1 to k1"),
        ({"k1": 0, "k2": 0}, "k1 at least 1"),
        ({"eps": 0.0}, "eps must be above 0 and below 1, not 0.0"),
        ({"eps": 1.0}, "eps must be above 0 and below 1, not 1.0"),
        ({"eps": math.nan}, "eps must be above 0 and below 1, not nan"),
        ({"min_samples": 0}, "min_samples must be at least 1"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_parameters_out_of_range_are_refused_before_any_work(arguments, message, device, monkeypatch):
    monkeypatch.setattr("clustering.labelling._join", None)  # would fail if it were called
    with pytest.raises(ValueError, match=message):
        label_images(SETS["people"], device=device, **arguments)


def test_seconds_are_given_for_each_part():
    seconds = label_images(SETS["people"]).seconds
    assert set(seconds) == {"neighbours", "graph", "dbscan"}
    assert all(value >= 0.0 for value in seconds.values())


PEAK_SCRIPT = """
import sys

def peak():
    # Not ru_maxrss, which begins with that of the process that started this one.
    status = open("/proc/self/status").read()
    return status.partition("VmHWM:")[2].split()[0]

import numpy as np
from clustering import joined_torch
from clustering.arithmetic_torch import BLOCK_BYTES
from clustering.labelling import label_images
from tests.reference.feature_sets import identity_features
images, device = int(sys.argv[1]), sys.argv[2]
joined_torch.torch_device = lambda name: __import__("torch").device("cpu")
BLOCK_BYTES["cpu"] = 1 << 24
label_images(identity_features(500, 10, 64), device=device)
features = identity_features(images, images // 40, 64)
before = peak()
label_images(features, device=device)
print(before, peak())
"""


def peaks(images, device):
    """Largest memory of a process in bytes, before and after it labels; on the CPU both with loops and with tensors."""
    return [int(size) * 1024 for size in run_fresh(PEAK_SCRIPT, str(images), device).split()]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_stays_far_below_a_matrix_of_all_pairs(device):
    # A single 6,000 x 6,000 float32 matrix would be 144 MB.
    before, after = peaks(6_000, device)
    assert after - before < 100e6


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_twenty_thousand_images_need_less_than_a_gigabyte(device):
    # A single 20,000 x 20,000 float32 matrix would be 1.6 GB.
    assert peaks(20_000, device)[1] < 1e9
