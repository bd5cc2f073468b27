"""What batches of known people are made of: the same people in both modalities, how many, how often."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from models.modality import PerModality
from pipeline.data.samplers.sampling import paired_identity_batches


def generator(seed=0):
    return np.random.default_rng(seed)


def ids_of(visible, infrared):
    return PerModality(np.asarray(visible, dtype=np.int64), np.asarray(infrared, dtype=np.int64))


def batches_of(person_ids, people=8, images=4, seed=0, replacement="always"):
    return paired_identity_batches(
        person_ids,
        people_per_batch=people,
        images_per_person=images,
        replacement=replacement,
        generator=generator(seed),
    )


@pytest.mark.parametrize(
    ("visible", "infrared", "num_people", "steps"),
    # SYSU-MM01: 22,258 / 32 = 695.6; RegDB: 2,060 / 32 = 64.4; a multiple of the batch still gets one more.
    [
        (22_258, 11_909, 395, 696),
        (11_909, 22_258, 395, 696),
        (2_060, 2_060, 206, 65),
        (64, 32, 8, 3),
        (63, 32, 8, 2),
        (31, 31, 8, 1),
    ],
)
def test_an_epoch_has_one_step_more_than_full_batches_fit_into_the_longer_list(visible, infrared, num_people, steps):
    batches = batches_of(ids_of(np.arange(visible) % num_people, np.arange(infrared) % num_people))
    assert len(batches) == len(list(batches)) == steps
    assert batches.positions.map(np.shape) == PerModality((steps, 32), (steps, 32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=60),
    st.lists(st.integers(0, 6), max_size=60),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["always", "when_short"]),
    st.integers(0, 1000),
)
def test_a_batch_shows_distinct_people_the_same_and_in_the_same_order_in_both_modalities(
    visible, infrared, people, images, replacement, seed
):
    person_ids = ids_of([0, 1, *visible], [1, 0, *infrared])
    both = set(person_ids.visible.tolist()) & set(person_ids.infrared.tolist())
    batches = batches_of(person_ids, people, images, seed, replacement)
    num_people = min(people, len(both))
    assert batches.clusters_per_batch == PerModality(num_people, num_people)
    assert batches.positions.visible.shape[1] == num_people * images
    assert len(batches) > 0
    for batch in batches:
        shown = batch.map_with(lambda positions, ids: ids[positions], person_ids)
        np.testing.assert_array_equal(shown.visible, shown.infrared)
        groups = shown.visible.reshape(num_people, images)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0].tolist())) == num_people
        assert set(groups[:, 0].tolist()) <= both
        for positions, ids in zip(batch, person_ids, strict=True):
            for person, members in zip(groups[:, 0], positions.reshape(num_people, images), strict=True):
                if replacement == "when_short" and np.count_nonzero(ids == person) >= images:
                    assert len(set(members.tolist())) == images


def test_a_person_with_fewer_images_than_wanted_is_drawn_with_repetition_and_the_others_are_not():
    # Person 0 has one visible image, person 1 has four; infrared the other way round.
    batches = batches_of(ids_of([0, 1, 1, 1, 1], [0, 0, 0, 0, 1]), 2, 4, replacement="when_short")
    for batch in batches:
        assert sorted(batch.visible.tolist()) == [0, 0, 0, 0, 1, 2, 3, 4]
        assert sorted(batch.infrared.tolist()) == [0, 1, 2, 3, 4, 4, 4, 4]


def test_replacement_always_repeats_images_of_a_person_who_has_just_enough():
    # 16 draws out of 16 are all different with probability 16! / 16^16, about one in a million.
    person_ids = ids_of(np.repeat([0, 1], 16), np.repeat([0, 1], 16))
    (batch,) = list(batches_of(person_ids, 1, 16))[:1]
    assert all(len(set(positions.tolist())) < 16 for positions in batch)


@pytest.mark.parametrize("replacement", ["always", "when_short"])
def test_people_and_their_images_are_drawn_uniformly_and_images_of_the_modalities_apart(replacement):
    # People of very different numbers of images come up equally often; so do the images of one person.
    person_ids = ids_of(np.repeat(np.arange(6), [3, 4, 5, 50, 6, 900]), np.repeat(np.arange(6), [9, 4, 3, 3, 6, 8]))
    positions = batches_of(person_ids, 2, 2, replacement=replacement).positions
    people = person_ids.visible[positions.visible[:, ::2]]
    assert chisquare(np.bincount(people.ravel(), minlength=6)).pvalue > 1e-3
    assert chisquare(np.bincount(people[:, 0], minlength=6)).pvalue > 1e-3
    first = positions.map_with(lambda drawn, ids: (drawn - np.searchsorted(ids, 4))[ids[drawn] == 4], person_ids)
    for offsets in first:
        assert chisquare(np.bincount(offsets, minlength=6)).pvalue > 1e-3
    # Person 4 has six images in each modality: the two drawn side by side are the same one in a sixth of the cases.
    same = np.count_nonzero(first.visible == first.infrared)
    assert chisquare([same, len(first.visible) - same], np.array([1, 5]) / 6 * len(first.visible)).pvalue > 1e-3


def test_people_of_one_modality_are_left_out_with_their_images():
    # Persons 2 and 3 are visible only, 9 is infrared only; their images do not lengthen the epoch: 8 / 8 + 1 steps.
    person_ids = ids_of([0, 1] * 4 + [2] * 50 + [3], [1, 0, 9, 9])
    batches = batches_of(person_ids, 2, 4)
    assert len(batches) == 2
    assert set(person_ids.visible[batches.positions.visible].ravel().tolist()) == {0, 1}
    assert set(person_ids.infrared[batches.positions.infrared].ravel().tolist()) == {0, 1}


def test_images_with_a_negative_number_are_left_out_even_where_both_modalities_have_them():
    person_ids = ids_of([-1, 0, 1, -1, 2] + [-1] * 40, [2, 1, 0, -1, -1])
    # Three images of each modality count: 3 / (2 * 2) is less than 1, so there is one step.
    batches = batches_of(person_ids, 2, 2)
    assert len(batches) == 1
    everyone = [batches_of(person_ids, 3, 2, seed) for seed in range(20)]
    shown = {int(person) for some in everyone for person in person_ids.visible[some.positions.visible].ravel()}
    assert shown == {0, 1, 2}


def test_images_left_out_draw_nothing_so_the_others_are_drawn_as_if_they_were_alone():
    alone = batches_of(ids_of([0, 1, 2, 0], [2, 1, 0]), 2, 3)
    beside = batches_of(ids_of([0, 1, 2, 0, -1, 7], [2, 1, 0, -1]), 2, 3)
    alone.positions.map_with(np.testing.assert_array_equal, beside.positions)


def test_fewer_people_than_wanted_are_all_shown_in_every_batch_and_reported_once(caplog):
    person_ids = ids_of(np.arange(100) % 3, np.arange(40) % 3)
    with caplog.at_level(logging.INFO, logger="pipeline.data.samplers.sampling"):
        batches = batches_of(person_ids)
    # 100 / (8 * 4) = 3.1: the steps follow what was asked for.
    assert batches.positions.visible.shape == (4, 12)
    assert [record.getMessage() for record in caplog.records] == ["batches contain all 3 persons, not 8"]


def test_nothing_is_reported_where_nothing_is_missing(caplog):
    with caplog.at_level(logging.INFO, logger="pipeline.data.samplers.sampling"):
        batches_of(ids_of(np.arange(16) % 8, np.arange(16) % 8))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("visible", "infrared"), [([0, 0, 1], [1, 2, 3, 3]), ([0, 1], []), ([0, 0], [0]), ([0, -1], [0, -1])]
)
def test_fewer_than_two_people_in_both_modalities_are_our_mistake(visible, infrared):
    with pytest.raises(AssertionError, match="person_labels refuses"):
        batches_of(ids_of(visible, infrared))


def test_two_people_are_enough():
    assert batches_of(ids_of([0, 1], [1, 0])).clusters_per_batch == PerModality(2, 2)


def test_person_numbers_may_have_gaps():
    person_ids = ids_of([7, 7, 2], [2, 7])
    (batch,) = batches_of(person_ids, 2, 3)
    assert set(person_ids.visible[batch.visible].tolist()) == {2, 7}


def test_batches_are_a_value_that_a_seed_decides():
    person_ids = ids_of(np.arange(100) % 7, np.arange(80) % 9)
    copies = person_ids.map(np.copy)
    first, again, other = (batches_of(person_ids, 3, seed=seed) for seed in (1, 1, 2))
    for one, two in zip(list(first) + list(first), list(again) * 2, strict=True):
        assert one.visible.tolist() == two.visible.tolist()
        assert one.infrared.tolist() == two.infrared.tolist()
    assert not np.array_equal(first.positions.visible, other.positions.visible)
    person_ids.map_with(np.testing.assert_array_equal, copies)
