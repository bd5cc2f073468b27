import itertools

import pytest

from models.modality import Modality
from pipeline.data.synthetic.captions import (
    ATTRIBUTES,
    caption_of,
    compose_caption,
    guess_colours,
    visible_attributes,
)
from pipeline.data.synthetic.knobs import DEFAULT
from pipeline.data.synthetic.people import COLOURS, data_set_people
from pipeline.data.synthetic.pose import Pose
from pipeline.runtime.seeds import numpy_generator

FACINGS = {"front": 0.0, "back": 3.1, "right": 1.5, "left": -1.5}


def pose(view: str, shift_y: float = 0.0) -> Pose:
    return Pose(FACINGS[view], 0.0, 0.3, 0.2, 0.0, 0.0, shift_y, 1.0)


@pytest.fixture(scope="module")
def people():
    return data_set_people(3, 200, DEFAULT)


@pytest.mark.parametrize("view", FACINGS)
def test_the_view_is_the_side_that_faces_the_camera(view):
    assert pose(view).view == view


@pytest.mark.parametrize("modality", Modality)
def test_a_caption_without_noise_names_what_is_shown_and_nothing_else(people, modality):
    rng = numpy_generator(1, "captions")
    for person, view in itertools.product(people[:60], FACINGS):
        shown = visible_attributes(person, pose(view), modality)

        assert compose_caption(shown, rng, modality, drop=0.0, swap=0.0) == caption_of(shown, modality)


def test_an_infrared_image_shows_no_colour(people):
    for person, view in itertools.product(people, FACINGS):
        shown = visible_attributes(person, pose(view), Modality.INFRARED)

        words = caption_of(shown, Modality.INFRARED).replace(",", "").split()

        assert not set(words) & set(COLOURS)


def test_a_texture_that_infrared_does_not_show_is_called_plain_there(people):
    faded = [person for person in people if person.upper.texture != "plain" and not person.upper.survives]

    assert faded
    for person in faded:
        assert visible_attributes(person, pose("front"), Modality.VISIBLE)["upper texture"] == person.upper.texture
        assert visible_attributes(person, pose("front"), Modality.INFRARED)["upper texture"] == "plain"


def test_a_backpack_is_not_named_from_the_front_but_from_behind(people):
    carriers = [person for person in people if person.bag == "backpack"]

    assert carriers
    for person in carriers:
        assert "bag" not in visible_attributes(person, pose("front"), Modality.VISIBLE)
        assert visible_attributes(person, pose("back"), Modality.VISIBLE)["bag"] == "backpack"


def test_a_handbag_is_named_when_its_side_is_near_and_not_when_the_body_hides_it(people):
    on_the_left = next(person for person in people if person.bag == "handbag" and person.bag_side > 0)

    assert visible_attributes(on_the_left, pose("left"), Modality.VISIBLE)["bag"] == "handbag"
    assert "bag" not in visible_attributes(on_the_left, pose("right"), Modality.VISIBLE)


def test_a_hat_hides_short_hair_but_not_long_hair(people):
    hatted = [person for person in people if person.hat != "none"]

    for person in hatted:
        named = "hair" in visible_attributes(person, pose("back"), Modality.VISIBLE)
        assert named == (person.hair in ("medium hair", "long hair", "a ponytail"))


def test_shoes_below_the_edge_of_the_picture_are_not_named(people):
    assert "shoes" not in visible_attributes(people[0], pose("front", shift_y=0.1), Modality.VISIBLE)


def test_bare_legs_have_no_colour_and_no_texture(people):
    dressed = next(person for person in people if person.upper.kind == "dress")

    shown = visible_attributes(dressed, pose("front"), Modality.VISIBLE)

    assert shown["lower"] == "bare legs"
    assert not {"lower colour", "lower texture"} & set(shown)


def test_every_shown_value_is_among_the_values_of_its_attribute(people):
    for person, view, modality in itertools.product(people, FACINGS, Modality):
        for attribute, value in visible_attributes(person, pose(view), modality).items():
            assert value in ATTRIBUTES[attribute]


def test_dropping_everything_leaves_a_person():
    shown = {"upper": "shirt", "view": "back"}

    assert compose_caption(shown, numpy_generator(1, "x"), Modality.VISIBLE, drop=1.0, swap=0.0) == "a person"


def test_every_value_of_an_attribute_has_a_caption_of_its_own():
    for attribute, options in ATTRIBUTES.items():
        captions = {caption_of({attribute: value}, Modality.VISIBLE) for value in options}

        assert len(captions) == len(options)


def garment_colours(named: dict[str, str]) -> dict[str, str]:
    return {slot: named[f"{slot} colour"] for slot in ("upper", "lower") if f"{slot} colour" in named}


def test_no_colour_is_guessed_when_the_share_is_zero(people):
    for person in people[:50]:
        shown = visible_attributes(person, pose("front"), Modality.INFRARED)

        assert guess_colours(shown, person, numpy_generator(1, "guess"), share=0.0) == shown


def test_every_named_garment_gets_a_colour_when_the_share_is_one_and_bare_legs_none(people):
    for person in people:
        shown = visible_attributes(person, pose("front"), Modality.INFRARED)

        guessed = garment_colours(guess_colours(shown, person, numpy_generator(1, "guess"), share=1.0))

        assert set(guessed) == ({"upper"} if person.upper.kind == "dress" else {"upper", "lower"})
        assert set(guessed.values()) <= set(COLOURS)


def test_a_garment_that_is_not_named_gets_no_colour(people):
    assert guess_colours({"view": "back"}, people[0], numpy_generator(1, "guess"), share=1.0) == {"view": "back"}


def test_guesses_follow_the_brightness_in_infrared_but_for_a_quarter_that_is_blind(people):
    rng = numpy_generator(1, "guess")
    bright = [person for person in people if sum(person.upper.reflectance) / 2 > 0.55]
    colours = [guess_colours({"upper": "shirt"}, person, rng, share=1.0)["upper colour"] for person in bright * 20]
    likely = sum(colour in ("white", "grey", "pink") for colour in colours) / len(colours)

    # Three quarters look, and a quarter takes one of twelve colours, of which three are right by chance:
    # .75 + .25 * 3 / 12 = .8125; with over 1,000 draws the standard deviation is below .0124.
    assert len(colours) > 1000
    assert likely == pytest.approx(0.8125, abs=0.05)


def test_most_guessed_colours_disagree_with_what_the_visible_caption_says(people):
    rng = numpy_generator(1, "guess")
    disagreeing = 0
    for person in people:
        visible = visible_attributes(person, pose("front"), Modality.VISIBLE)
        infrared = visible_attributes(person, pose("front"), Modality.INFRARED)
        disagreeing += guess_colours(infrared, person, rng, share=1.0)["upper colour"] != visible["upper colour"]

    # By chance one of twelve colours agrees; a guess from the brightness is right at most one time in three.
    assert disagreeing / len(people) >= 2 / 3
