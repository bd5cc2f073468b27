"""What batches are made of: how many, of whom, how often, and where the numbers of draws are exact."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from models.modality import PerModality
from pipeline.data.samplers.sampling import cross_modal_batches, paired_batches
from pipeline.errors import DegenerateClustering


def generator(seed=0):
    return np.random.default_rng(seed)


def labels_of(visible, infrared):
    return PerModality(np.asarray(visible, dtype=np.int64), np.asarray(infrared, dtype=np.int64))


def batches_of(labels, clusters=4, images=4, seed=0, **options):
    return cross_modal_batches(
        labels, clusters_per_batch=clusters, images_per_cluster=images, generator=generator(seed), **options
    )


@pytest.mark.parametrize(
    ("num_images", "clusters", "images", "steps"),
    # 22,258 / 64 = 347.8 and / 32 = 695.6; 2,060 / 32 = 64.4; a multiple of the batch still gets one more.
    [(22_258, 4, 16, 348), (22_258, 4, 8, 696), (2_060, 4, 8, 65), (64, 4, 16, 2), (63, 4, 16, 1)],
)
def test_an_epoch_has_one_step_more_than_full_batches_fit_into_the_longer_list(num_images, clusters, images, steps):
    longer, shorter = np.arange(num_images) % 5, np.arange(num_images // 2) % 5
    for labels in (labels_of(longer, shorter), labels_of(shorter, longer)):
        batches = batches_of(labels, clusters, images)
        assert len(batches) == len(list(batches)) == steps


def test_outliers_count_for_nothing_in_the_length_of_an_epoch():
    # 16 labelled images are one full batch of 4 x 4: two steps, however many outliers there are.
    labels = np.concatenate([np.arange(16) % 4, np.full(100, -1)])
    assert len(batches_of(labels_of(labels, labels[:30]))) == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-1, 6), min_size=1, max_size=60).filter(lambda labels: max(labels) >= 0),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["always", "when_short"]),
    st.integers(0, 1000),
)
def test_a_batch_shows_distinct_clusters_and_as_many_images_of_each(labels, clusters, images, replacement, seed):
    labels = np.array(labels)
    batches = batches_of(labels_of(labels, labels[::-1]), clusters, images, seed, replacement=replacement)
    num_shown = min(clusters, len(set(labels[labels >= 0].tolist())))
    assert batches.clusters_per_batch == PerModality(num_shown, num_shown)
    for batch in batches:
        for positions, own in ((batch.visible, labels), (batch.infrared, labels[::-1])):
            groups = own[positions].reshape(num_shown, images)
            assert (groups >= 0).all()
            assert (groups == groups[:, :1]).all()
            assert len(set(groups[:, 0].tolist())) == num_shown
            if replacement == "when_short":
                for label, members in zip(groups[:, 0], positions.reshape(num_shown, images), strict=True):
                    if np.count_nonzero(own == label) >= images:
                        assert len(set(members.tolist())) == images


def test_replacement_always_repeats_images_of_a_cluster_that_has_just_enough():
    # 16 draws out of 16 are all different with probability 16! / 16^16, about one in a million.
    labels = np.zeros(16, dtype=np.int64)
    repeated = next(iter(batches_of(labels_of(labels, labels), 1, 16, replacement="always")))
    assert len(set(repeated.visible.tolist())) < 16
    whole = next(iter(batches_of(labels_of(labels, labels), 1, 16, replacement="when_short")))
    assert sorted(whole.visible.tolist()) == list(range(16))


@pytest.mark.parametrize("replacement", ["always", "when_short"])
def test_clusters_and_their_images_are_drawn_uniformly_and_modalities_apart(replacement):
    # Clusters of very different size come up equally often; so do the images of one cluster.
    labels = np.repeat(np.arange(6), [3, 4, 5, 50, 6, 600])
    batches = batches_of(labels_of(labels, labels), 2, 2, replacement=replacement)
    visible, infrared = batches.positions
    for positions in (visible, infrared):
        drawn = labels[positions[:, ::2]]
        assert chisquare(np.bincount(drawn.ravel(), minlength=6)).pvalue > 1e-3
        assert chisquare(np.bincount(drawn[:, 0], minlength=6)).pvalue > 1e-3
        images = positions[labels[positions] == 4]
        assert chisquare(np.bincount(images, minlength=len(labels))[labels == 4]).pvalue > 1e-3
    # The same two clusters in both modalities: one pair of 15, so in about 7 % of the steps, not in all.
    same = (np.sort(labels[visible[:, ::2]]) == np.sort(labels[infrared[:, ::2]])).all(axis=1)
    assert same.mean() < 0.2


def test_a_modality_with_fewer_clusters_shows_all_of_them_and_says_so_once(caplog):
    labels = labels_of(np.arange(40) % 2, np.arange(40) % 8)
    with caplog.at_level(logging.INFO, logger="pipeline.data.samplers.sampling"):
        batches = batches_of(labels)
        assert [(len(batch.visible), len(batch.infrared)) for batch in batches] == [(8, 16)] * 3
    assert [record.getMessage() for record in caplog.records] == ["batches contain all 2 visible clusters, not 4"]


def test_label_numbers_may_have_gaps():
    labels = np.array([7, 7, 2, 2])
    (batch,) = batches_of(labels_of(labels, labels), 2, 3)
    assert set(labels[batch.visible].tolist()) == {2, 7}


def test_a_modality_without_clusters_is_named():
    with pytest.raises(DegenerateClustering, match="none of the 3 infrared images") as caught:
        batches_of(labels_of([0, 0, 1], [-1, -1, -1]))
    assert "labelling.infrared.eps" in caught.value.hint


def test_batches_are_a_value_that_a_seed_decides():
    labels = labels_of(np.arange(100) % 7, np.arange(80) % 5)
    copies = labels.map(np.copy)
    first, again, other = batches_of(labels, seed=1), batches_of(labels, seed=1), batches_of(labels, seed=2)
    for one, two in zip(list(first) + list(first), list(again) * 2, strict=True):
        assert one.visible.tolist() == two.visible.tolist()
        assert one.infrared.tolist() == two.infrared.tolist()
    assert not np.array_equal(first.positions.visible, other.positions.visible)
    labels.map_with(np.testing.assert_array_equal, copies)


@pytest.mark.parametrize(("count", "steps"), [(127, 1), (128, 1), (129, 2), (256, 2), (1, 1)])
@pytest.mark.parametrize("other", [1, 50])
def test_paired_batches_show_the_longer_list_once_and_fill_up_the_shorter_one(count, steps, other):
    other = min(other, count)
    batches = paired_batches(PerModality(other, count), 128, generator())
    assert len(batches) == len(list(batches)) == steps
    short = np.concatenate([batch.visible for batch in batches])
    long = np.concatenate([batch.infrared for batch in batches])
    assert len(short) == len(long) == count
    assert sorted(long.tolist()) == list(range(count))
    assert sorted(short[:other].tolist()) == list(range(other))
    assert set(short.tolist()) == set(range(other))
    assert all(len(batch.visible) == len(batch.infrared) > 0 for batch in batches)


def test_paired_batches_of_equal_lists_show_both_once_in_orders_of_their_own():
    batches = paired_batches(PerModality(100, 100), 32, generator())
    visible, infrared = batches.positions
    assert sorted(visible.tolist()) == sorted(infrared.tolist()) == list(range(100))
    assert visible.tolist() != infrared.tolist()


def test_the_shorter_list_is_filled_up_uniformly():
    positions = paired_batches(PerModality(4, 4_004), 64, generator()).positions.visible
    assert chisquare(np.bincount(positions[4:], minlength=4)).pvalue > 1e-3


def test_an_empty_list_cannot_be_paired():
    with pytest.raises(DegenerateClustering, match="visible"):
        paired_batches(PerModality(0, 5), 4, generator())
