"""Controls: what a caption says is taken away, in three ways."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.modality import Modality, PerModality
from pipeline.data.captions.store import (
    constant_captions,
    infrared_from_visible,
    load_captions,
    same_person_captions,
    shuffled_captions,
)
from pipeline.data.truth import PersonIds
from pipeline.errors import DataError
from tests.pipeline.data.captions.caption_inputs import rows, small_dataset, write_lines


def people(*ids: int) -> PersonIds:
    return PersonIds(np.array(ids, dtype=np.int64))


@given(
    ids=st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(
        lambda ids: len(ids) >= 2 * max(Counter(ids).values())
    ),
    seed=st.integers(0, 5),
)
def test_nobody_keeps_a_caption_of_their_own_and_every_caption_is_used_once(ids, seed):
    texts = tuple(f"{person} {image}" for image, person in enumerate(ids))

    exchanged = shuffled_captions(texts, people(*ids), Modality.VISIBLE, seed)

    assert Counter(exchanged) == Counter(texts)
    assert all(int(text.split()[0]) != person for text, person in zip(exchanged, ids, strict=True))
    assert exchanged == shuffled_captions(texts, people(*ids), Modality.VISIBLE, seed)


def test_another_seed_or_modality_exchanges_otherwise():
    ids = people(*[0] * 8, *[1] * 8, *[2] * 8)
    texts = tuple(map(str, range(24)))

    drawn = {
        shuffled_captions(texts, ids, modality, seed)
        for modality, seed in ((Modality.VISIBLE, 1), (Modality.VISIBLE, 2), (Modality.INFRARED, 1))
    }

    assert len(drawn) == 3


def test_a_person_with_half_of_the_images_can_exchange_them_and_with_more_not():
    assert shuffled_captions(("a", "b"), people(1, 2), Modality.VISIBLE, 1) == ("b", "a")
    with pytest.raises(DataError, match="one person has 2 of the 3 visible training images"):
        shuffled_captions(("a", "b", "c"), people(1, 1, 2), Modality.VISIBLE, 1)


def test_the_constant_control_says_one_sentence():
    assert constant_captions(("a", "b")) == ("A photo of a person.", "A photo of a person.")


def test_infrared_images_take_a_visible_caption_of_their_person_and_visible_ones_keep_theirs():
    texts = PerModality(("1 a", "1 b", "2 a"), ("x", "y", "z", "u"))

    taken = infrared_from_visible(texts, PerModality(people(1, 1, 2), people(2, 1, 1, 3)), 1)

    assert taken.visible == texts.visible
    assert taken.infrared[0] == "2 a"
    assert {taken.infrared[1], taken.infrared[2]} <= {"1 a", "1 b"}
    assert taken.infrared[3] == "u"  # person 3 has no visible image


def test_each_visible_caption_of_a_person_is_taken_by_chance():
    texts = PerModality(("a", "b"), ("x",) * 100)

    taken = infrared_from_visible(texts, PerModality(people(1, 1), people(*[1] * 100)), 1).infrared

    # Each of 100 images takes one of two captions: 50 expected, standard deviation 5.
    assert 25 <= taken.count("a") <= 75
    assert taken == infrared_from_visible(texts, PerModality(people(1, 1), people(*[1] * 100)), 1).infrared
    assert taken != infrared_from_visible(texts, PerModality(people(1, 1), people(*[1] * 100)), 2).infrared


def test_controls_that_need_people_refuse_images_that_do_not_say_whom_they_show():
    with pytest.raises(DataError, match="not all infrared training images have a person"):
        shuffled_captions(("a", "b"), people(-1, -1), Modality.INFRARED, 1)
    with pytest.raises(DataError, match="not all infrared training images have a person"):
        infrared_from_visible(PerModality(("a",), ("b",)), PerModality(people(1), people(-1)), 1)


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("constant", {"A photo of a person."}),
        ("infrared_from_visible", {f"visible cam1/{person}/{image}.jpg" for person in (1, 2) for image in (1, 2)}),
    ],
)
def test_loading_applies_the_control(tmp_path, control, expected):
    path = write_lines(tmp_path / "c.jsonl", rows())

    captions = load_captions(small_dataset(tmp_path), path, control=control)

    assert set(captions.texts.infrared) <= expected


def test_loading_shuffles_inside_each_modality_or_says_why_it_cannot(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", rows())

    # Person 1 has two of the three infrared images.
    with pytest.raises(DataError, match="2 of the 3 infrared"):
        load_captions(small_dataset(tmp_path), path, control="shuffled")


@given(ids=st.lists(st.integers(0, 4), min_size=1, max_size=30), seed=st.integers(0, 5))
def test_captions_of_the_same_person_stay_with_the_person(ids, seed):
    texts = tuple(f"{person} {image}" for image, person in enumerate(ids))

    taken = same_person_captions(texts, people(*ids), Modality.VISIBLE, seed)

    assert [int(text.split()[0]) for text in taken] == ids
    assert taken == same_person_captions(texts, people(*ids), Modality.VISIBLE, seed)


def test_captions_of_the_same_person_are_not_all_an_images_own():
    ids = people(*[0] * 10)
    texts = tuple(map(str, range(10)))

    # Ten draws out of ten all hit the image itself once in ten thousand million times.
    assert same_person_captions(texts, ids, Modality.VISIBLE, 1) != texts
