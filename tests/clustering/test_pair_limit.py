"""Too many pairs are refused with a radius that fits, and the curve goes as far as can be held."""

import logging

import numpy as np
import pytest
import torch

from clustering import jaccard, joined_torch
from clustering.jaccard import neighbourhood_weights, radius_graph
from clustering.labelling import CURVE_EPS, label_images
from clustering.neighbours import nearest_neighbours
from tests.reference.clustering import jaccard_distances
from tests.reference.feature_sets import copied_features, identity_features

FEATURES = identity_features(300, 7, 64)
DISTANCES = np.sort(jaccard_distances(FEATURES, 30, 6)[np.triu_indices(300, k=1)])
PAIRS = {eps: int(np.searchsorted(DISTANCES, eps, side="right")) for eps in CURVE_EPS}


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch):
    """Compiled loops, and tensors: on the CPU, under the name of a GPU."""
    monkeypatch.setattr(joined_torch, "torch_device", lambda _: torch.device("cpu"))
    return request.param


def test_the_sets_have_more_pairs_within_a_larger_radius():
    assert sorted(PAIRS.values()) == list(PAIRS.values())
    assert PAIRS[0.45] < PAIRS[0.5] < PAIRS[0.6]


@pytest.mark.parametrize("limit", [PAIRS[0.45], PAIRS[0.5] - 1])
def test_too_many_pairs_are_refused_with_the_largest_radius_that_fits(device, limit, monkeypatch):
    monkeypatch.setattr(jaccard, "MOST_PAIRS", limit)
    message = (
        rf"eps 0.6 has {PAIRS[0.6]:,} pairs of images, more than {limit:,}: eps 0.45 would fit with {PAIRS[0.45]:,}"
    )
    with pytest.raises(ValueError, match=message):
        label_images(FEATURES, device=device)


def test_the_radius_that_fits_gives_its_labels_and_the_curve_up_to_there(device, monkeypatch, caplog):
    whole = label_images(FEATURES, eps=0.45)
    monkeypatch.setattr(jaccard, "MOST_PAIRS", PAIRS[0.5] - 1)
    with caplog.at_level(logging.WARNING):
        found = label_images(FEATURES, eps=0.45, device=device)
    assert np.array_equal(found.clustering.labels, whole.clustering.labels)
    assert found.curve == whole.curve[:2]  # 0.40 and 0.45
    assert "too many pairs beyond distance 0.45" in caplog.text


def test_exactly_as_many_pairs_as_allowed_are_held(device, monkeypatch, caplog):
    monkeypatch.setattr(jaccard, "MOST_PAIRS", PAIRS[0.7])
    assert label_images(FEATURES, device=device).curve == label_images(FEATURES).curve
    assert not caplog.records


def test_features_in_one_place_fit_no_radius(device, monkeypatch):
    # Sixty equal images: 60 * 59 / 2 = 1,770 pairs at distance 0.
    monkeypatch.setattr(jaccard, "MOST_PAIRS", 1_000)
    with pytest.raises(ValueError, match=r"1,770 pairs .* even eps 0.4 has 1,770, so nearly all features are equal"):
        label_images(copied_features(1, 60, 8), k1=60, device=device)


@pytest.mark.parametrize("threads", [1, 5])
def test_blocks_stop_when_the_pairs_are_too_many(threads, monkeypatch):
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: threads)
    weights = neighbourhood_weights(FEATURES, nearest_neighbours(FEATURES, 30), k1=30, k2=6)
    assert len(radius_graph(weights, 0.6).source) == PAIRS[0.6]
    monkeypatch.setattr(jaccard, "MOST_PAIRS", 10)
    with pytest.raises(ValueError, match=f"eps 0.6 has {PAIRS[0.6]:,} pairs"):
        radius_graph(weights, 0.6)


def test_the_limit_is_that_of_places_in_31_bits():
    assert jaccard.MOST_PAIRS == 2_147_483_648
