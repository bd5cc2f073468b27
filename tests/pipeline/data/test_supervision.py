"""The people of training images as supervised training may know them: numbers, and nothing else."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.modality import Modality, PerModality
from pipeline.data.images import ImageTable
from pipeline.data.supervision import LEFT_OUT, PersonLabels, person_labels
from pipeline.data.truth import UNKNOWN_PERSON, Dataset, PersonIds, SplitTables
from pipeline.errors import DataError


def table_of(num_images, modality):
    paths = tuple(f"{number:04d}.png" for number in range(num_images))
    return ImageTable(Path("drawn"), paths, np.zeros(num_images, dtype=np.int64), modality)


def dataset_of(visible, infrared):
    """A data set whose training images show these people, in the order of the store."""
    people = PerModality(visible, infrared).map(lambda ids: PersonIds(np.asarray(ids, dtype=np.int64)))
    images = PerModality.build(lambda modality: table_of(len(people[modality]), modality))
    return Dataset(
        name="some",
        kind="drawn",
        root=Path("drawn"),
        images=images,
        training=SplitTables(images, people),
        validation=None,
        test=None,
        partial=False,
    )


def labels_of(visible, infrared, rows=None):
    dataset = dataset_of(visible, infrared)
    return person_labels(dataset, rows or dataset.images.map(lambda table: np.arange(len(table))))


def as_lists(found):
    return [labels.tolist() for labels in found.labels]


def test_people_are_numbered_from_zero_in_the_order_of_their_true_numbers_alike_in_both_modalities():
    # 3, 17 and 200 are people 0, 1 and 2, whatever comes first.
    found = labels_of([200, 3, 17, 3], [17, 17, 200, 3])
    assert as_lists(found) == [[2, 0, 1, 0], [1, 1, 2, 0]]
    assert found.num_people == 3
    assert all(labels.dtype == np.int64 for labels in found.labels)


def test_labels_follow_the_order_in_which_images_are_trained_on():
    rows = PerModality(np.array([3, 0, 2, 1]), np.array([1, 0]))
    # Rows 3, 0, 2 and 1 show 6, 8, 8 and 5: of 5 and 6, who are seen in both modalities, 6 is person 1.
    assert as_lists(labels_of([8, 5, 8, 6], [6, 5], rows)) == [[1, LEFT_OUT, LEFT_OUT, 0], [0, 1]]


def test_people_of_one_modality_are_left_out_and_counted_once(caplog):
    with caplog.at_level(logging.INFO, logger="pipeline.data.supervision"):
        found = labels_of([0, 9, 4, 2, 4, 7], [7, 4, 1, 1])
    # 4 and 7 are in both; 0, 2 and 9 are visible only, 1 is infrared only; numbers below, between and above.
    assert as_lists(found) == [[-1, -1, 0, -1, 0, 1], [1, 0, -1, -1]]
    assert found.num_people == 2
    assert LEFT_OUT == -1
    assert [record.getMessage() for record in caplog.records] == [
        "4 persons are excluded: 3 have visible images only, 1 infrared ones only"
    ]


def test_nothing_is_reported_where_everybody_is_seen_in_both_modalities(caplog):
    with caplog.at_level(logging.INFO, logger="pipeline.data.supervision"):
        labels_of([1, 2], [2, 1])
    assert caplog.records == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=25), st.lists(st.integers(0, 30), max_size=25))
def test_every_number_up_to_the_number_of_people_occurs_in_both_modalities_and_order_is_kept(visible, infrared):
    ids = PerModality([40, 41, *visible], [41, 40, *infrared])
    both = sorted(set(ids.visible) & set(ids.infrared))
    found = labels_of(*ids)
    assert found.num_people == len(both)
    for labels, own in zip(found.labels, ids, strict=True):
        assert labels.tolist() == [both.index(person) if person in both else LEFT_OUT for person in own]
        assert set(labels[labels >= 0].tolist()) == set(range(len(both)))


@pytest.mark.parametrize("modality", Modality)
def test_an_image_of_nobody_known_is_refused_with_the_way_to_train_without(modality):
    known, unknown = [1, 2, 3], [1, UNKNOWN_PERSON, 2]
    ids = PerModality.build(lambda one: unknown if one is modality else known)
    with pytest.raises(DataError, match=f"not all {modality} training images of drawn have a person") as caught:
        labels_of(*ids)
    assert "vireid train cclnet-sysu" in caught.value.hint


@pytest.mark.parametrize(
    ("visible", "infrared", "count"),
    [([0, 0, 1], [1, 2, 3, 3], 1), ([0, 1], [2, 3], 0), ([0, 0], [0], 1)],
)
def test_fewer_than_two_people_in_both_modalities_cannot_be_told_apart(visible, infrared, count):
    with pytest.raises(
        DataError, match=f"{count} persons of drawn have images of both modalities; 2 are needed"
    ) as caught:
        labels_of(visible, infrared)
    assert "same name in both modalities" in caught.value.hint


def test_two_people_are_enough():
    assert labels_of([5, 9], [9, 5]).num_people == 2


def test_labels_hold_no_true_numbers():
    assert {field.name for field in dataclasses.fields(PersonLabels)} == {"labels", "num_people"}
