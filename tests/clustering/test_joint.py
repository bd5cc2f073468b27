"""One clustering of both modalities: lists, distances, labels, and what is read off it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clustering import joined_torch
from clustering.dbscan import OUTLIER, Clustering
from clustering.joint import balanced_lengths, balanced_lists, label_jointly, split_by_modality
from clustering.labelling import label_images
from clustering.neighbours import search_between
from clustering.prototypes import cluster_prototypes
from tests.reference import clustering as reference
from tests.reference.feature_sets import copied_features, gaussian_features, identity_features, unit

PEOPLE = identity_features(150, 5, 64)
VISIBLE, INFRARED = PEOPLE[:90], PEOPLE[90:]
COPIES = copied_features(5, 18, 16)
SETS = {
    "people": (VISIBLE, INFRARED),
    "copies": (COPIES[:50], COPIES[50:]),
    "no structure": (gaussian_features(40, 16), gaussian_features(50, 16, seed=2)),
}
every_set = pytest.mark.parametrize(("visible", "infrared"), SETS.values(), ids=SETS.keys())


def lists_of(visible, infrared, k1, k2):
    lengths = balanced_lengths(len(visible), len(infrared), k1, k2)
    return balanced_lists(np.concatenate([visible, infrared]), len(visible), lengths)


@every_set
@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (10, 1)])
def test_lists_are_those_of_the_dense_definition(visible, infrared, k1, k2):
    found, averaged = lists_of(visible, infrared, k1, k2)
    ranks, near_visible, near_infrared = reference.balanced_lists(
        np.concatenate([visible, infrared]), len(visible), k1 // 2
    )
    assert np.array_equal(found.ranks, ranks)
    assert np.array_equal(averaged, np.concatenate([near_visible[:, :k2], near_infrared[:, :k2]], axis=1))


@every_set
def test_each_list_has_as_many_visible_as_infrared_images_and_begins_with_its_own(visible, infrared):
    found, _ = lists_of(visible, infrared, 20, 6)
    assert np.all(np.count_nonzero(found.ranks < len(visible), axis=1) == 10)
    assert np.array_equal(found.ranks[:, 0], np.arange(len(found.ranks)))
    assert np.all(np.diff(found.similarities[:, 1:], axis=1) <= 1e-6)


@every_set
@pytest.mark.parametrize(("k1", "k2", "eps"), [(30, 6, 0.6), (10, 3, 0.55)])
def test_labels_are_those_of_the_dense_definition(visible, infrared, k1, k2, eps):
    from sklearn.cluster import DBSCAN

    distances = reference.balanced_distances(np.concatenate([visible, infrared]), len(visible), k1, k2)
    assert np.abs(distances - eps)[distances > 0].min() > 1e-6  # rounding decides no pair
    expected = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit(distances)
    found = label_jointly(visible, infrared, k1=k1, k2=k2, eps=eps)
    assert np.array_equal(found.clustering.labels, expected.labels_)
    assert np.array_equal(np.flatnonzero(found.clustering.core), expected.core_sample_indices_)
    assert found.num_edges == np.count_nonzero(np.triu(distances <= eps, 1))
    assert (found.k1, found.k2) == (k1, k2)


@pytest.mark.parametrize("infrared_only", [False, True])
def test_images_of_one_modality_have_half_a_list_and_the_labels_of_it_alone(infrared_only):
    nothing = VISIBLE[:0]
    found = label_jointly(nothing, PEOPLE, k1=30) if infrared_only else label_jointly(PEOPLE, nothing, k1=30)
    alone = label_images(PEOPLE, k1=15)
    assert np.array_equal(found.clustering.labels, alone.clustering.labels)
    assert (found.k1, found.k2, found.num_edges, found.curve) == (15, 6, alone.num_edges, alone.curve)


def test_no_images_give_no_labels():
    nothing = VISIBLE[:0]
    found = label_jointly(nothing, nothing)
    parts = split_by_modality(found.clustering, nothing, nothing)
    assert len(found.clustering.labels) == len(parts.matching.visible) == 0
    assert parts.two_modality_share == 0.0


def test_a_modality_with_few_images_shortens_lists_and_means():
    found = label_jointly(VISIBLE, INFRARED[:3], k1=30, k2=6)
    assert (found.k1, found.k2) == (18, 3)


@every_set
def test_exchanging_the_modalities_permutes_core_images_and_outliers_only(visible, infrared):
    forth, back = (label_jointly(*pair, k1=20).clustering for pair in ((visible, infrared), (infrared, visible)))
    order = np.concatenate([np.arange(len(infrared), len(back.labels)), np.arange(len(infrared))])
    if len(np.unique(np.concatenate([visible, infrared]), axis=0)) == len(forth.labels):  # copies tie by index
        assert np.array_equal(forth.core, back.core[order])
        assert np.array_equal(forth.labels == OUTLIER, back.labels[order] == OUTLIER)
    assert forth.num_clusters == back.num_clusters


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_threads_do_not_change_the_labels(threads, monkeypatch):
    first = label_jointly(VISIBLE, INFRARED)
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: threads)
    second = label_jointly(VISIBLE, INFRARED)
    assert np.array_equal(first.clustering.labels, second.clustering.labels)
    assert (first.num_edges, first.curve, first.max_in_degree) == (second.num_edges, second.curve, second.max_in_degree)


@every_set
def test_a_torch_device_gives_the_labels_of_the_cpu(visible, infrared, monkeypatch):
    expected = label_jointly(visible, infrared)
    monkeypatch.setattr(joined_torch, "torch_device", lambda _: torch.device("cpu"))
    found = label_jointly(visible, infrared, device="cuda")
    assert np.array_equal(found.clustering.labels, expected.clustering.labels)
    for field in ("num_edges", "curve", "distance_quantiles", "max_in_degree", "k1", "k2"):
        assert getattr(found, field) == getattr(expected, field)
    assert (expected.search, found.search) == ("faiss-cpu exact, balanced", "torch cpu, balanced")


@given(
    seed=st.integers(0, 10_000),
    num_visible=st.integers(0, 15),
    num_infrared=st.integers(0, 15),
    half=st.integers(1, 6),
    k2=st.integers(1, 6),
)
@settings(max_examples=15)
def test_ties_and_small_modalities_give_the_same_labels_on_every_device(seed, num_visible, num_infrared, half, k2):
    generator = np.random.default_rng(seed)
    rows = generator.integers(-1, 2, size=(8, 5)) + np.array([0.0, 0.0, 0.0, 0.0, 3.0])
    features = unit(rows[generator.integers(8, size=num_visible + num_infrared)].reshape(-1, 5))
    options = {"k1": 2 * half, "k2": min(half, k2), "min_samples": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined_torch, "torch_device", lambda _: torch.device("cpu"))
        expected, found = (
            label_jointly(features[:num_visible], features[num_visible:], device=device, **options)
            for device in ("cpu", "cuda")
        )
    assert np.array_equal(found.clustering.labels, expected.clustering.labels)


def test_the_labels_of_a_subset_are_those_of_its_images():
    rows = np.random.default_rng(1).permutation(len(VISIBLE))[:60]
    found = label_jointly(VISIBLE, INFRARED, visible_rows=rows)
    assert np.array_equal(found.clustering.labels, label_jointly(VISIBLE[rows], INFRARED).clustering.labels)
    parts = split_by_modality(found.clustering, VISIBLE, INFRARED, visible_rows=rows)
    absent = np.setdiff1d(np.arange(len(VISIBLE)), rows)
    assert np.all(parts.visible.labels[absent] == OUTLIER) and not parts.visible.core[absent].any()
    inside = split_by_modality(found.clustering, VISIBLE[rows], INFRARED)
    assert np.array_equal(parts.visible.labels[rows], inside.visible.labels)
    assert np.array_equal(parts.matching.infrared, inside.matching.infrared)


def test_labels_are_numbered_again_in_each_modality_and_clusters_of_both_are_pairs():
    rows = np.eye(4, dtype=np.float32)
    # Joint clusters: 0 visible only, 1 of both, 2 infrared only, 3 of both.
    joint = np.array([0, 1, OUTLIER, 3, 3, 2, 1, OUTLIER])
    core = np.array([True, False, False, True, False, True, True, False])
    visible, infrared = rows[[0, 1, 2, 3, 3]], rows[[2, 1, 0]]
    parts = split_by_modality(Clustering(joint, core), visible, np.concatenate([infrared, rows[:0]]))
    assert parts.visible.labels.tolist() == [0, 1, OUTLIER, 2, 2]
    assert parts.infrared.labels.tolist() == [1, 0, OUTLIER]
    assert parts.visible.core.tolist() == core[:5].tolist()
    assert (parts.matching.visible.tolist(), parts.matching.infrared.tolist()) == ([1], [0])
    assert parts.matching.similarity.tolist() == [1.0]  # both are the second unit vector
    assert parts.two_modality_share == 0.25


def test_pairs_of_people_in_both_modalities_are_read_off():
    labels = label_jointly(VISIBLE, INFRARED).clustering
    parts = split_by_modality(labels, VISIBLE, INFRARED)
    assert parts.two_modality_share > 0.5
    first, second = labels.labels[: len(VISIBLE)], labels.labels[len(VISIBLE) :]
    for visible, infrared in zip(parts.matching.visible, parts.matching.infrared, strict=True):
        assert set(first[parts.visible.labels == visible]) == set(second[parts.infrared.labels == infrared])
    prototypes = cluster_prototypes(VISIBLE, parts.visible.labels), cluster_prototypes(INFRARED, parts.infrared.labels)
    expected = prototypes[0][parts.matching.visible] * prototypes[1][parts.matching.infrared]
    np.testing.assert_allclose(parts.matching.similarity, expected.sum(axis=1), atol=1e-6)


def test_ties_longer_than_the_candidates_are_ordered_by_index():
    # The query is as similar to all 40 copies; three of them are wanted, eleven are candidates of the search.
    rows = np.repeat(np.eye(2, 8, dtype=np.float32), [5, 40], axis=0)
    ranks, similarities = search_between(rows, range(5), range(5, 45), 3)
    assert ranks.tolist() == [[5, 6, 7]] * 5
    assert not similarities.any()
    back, _ = search_between(rows, range(5, 45), range(5), 2)
    assert back.tolist() == [[0, 1]] * 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 15}, "k1 must be even"),
        ({"k1": 10, "k2": 6}, "k2 from 1 to k1 / 2"),
        ({"k2": 0}, "k2 from 1 to k1 / 2"),
        ({"eps": 1.0}, "eps must be above 0 and below 1"),
        ({"min_samples": 0}, "min_samples must be at least 1"),
        ({"device": "gpu"}, "'gpu' is not a device"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        label_jointly(VISIBLE, INFRARED, **options)


def test_labels_of_other_images_are_refused():
    with pytest.raises(ValueError, match="90 visible and 59 infrared images need as many labels, not 150"):
        split_by_modality(label_jointly(VISIBLE, INFRARED).clustering, VISIBLE, INFRARED[1:])


def test_bad_rows_are_named_on_either_side():
    rows = INFRARED.copy()
    rows[3] *= 2.0
    with pytest.raises(ValueError, match="row 93 has length 2, not 1"):
        label_jointly(VISIBLE, rows)
