import itertools

import numpy as np
import pytest

from pipeline.data.synthetic.captions import ATTRIBUTES
from pipeline.data.synthetic.knobs import DEFAULT, EASY, HARD, SyntheticKnobs, blend_knobs, knobs_for
from pipeline.data.synthetic.people import (
    COLOURS,
    Garment,
    data_set_people,
    fresh_people,
    luminance,
    make_wardrobe,
    purpose_of,
    reflectance,
)
from pipeline.errors import ConfigError
from pipeline.runtime.seeds import numpy_generator


def wardrobe(knobs: SyntheticKnobs, num_garments: int = 400) -> list[Garment]:
    many = knobs.model_copy(update={"wardrobe": num_garments})
    uppers, lowers = make_wardrobe(numpy_generator(3, "wardrobe"), many)
    return [*uppers, *lowers]


def test_no_two_people_of_a_data_set_share_the_tuple_that_infrared_shows():
    people = data_set_people(seed=1, num_people=491, knobs=HARD)

    assert len({person.shared_tuple for person in people}) == 491


def test_the_first_people_of_a_large_set_are_the_people_of_a_small_one():
    assert data_set_people(7, 40, DEFAULT)[:10] == data_set_people(7, 10, DEFAULT)


def test_another_seed_gives_other_people():
    assert not set(data_set_people(1, 20, DEFAULT)) & set(data_set_people(2, 20, DEFAULT))


def test_people_of_a_data_set_wear_no_more_garments_than_the_wardrobe_holds():
    people = data_set_people(seed=1, num_people=300, knobs=DEFAULT)

    worn = {person.upper for person in people} | {person.lower for person in people}

    assert len(worn) <= DEFAULT.wardrobe


@pytest.mark.parametrize("knobs", [EASY, DEFAULT, HARD])
def test_pretraining_and_data_sets_share_no_person_and_no_tuple(knobs):
    evaluated = data_set_people(seed=1, num_people=200, knobs=knobs)
    pretrained = list(itertools.islice(fresh_people(seed=1, knobs=knobs), 400))

    assert {purpose_of(person.shared_tuple) for person in evaluated} == {"evaluation"}
    assert {purpose_of(person.shared_tuple) for person in pretrained} == {"pretraining"}
    assert not {person.shared_tuple for person in evaluated} & {person.shared_tuple for person in pretrained}
    assert not set(evaluated) & set(pretrained)


def test_two_fifths_of_all_tuples_are_for_pretraining():
    kinds = itertools.product(*(ATTRIBUTES[name] for name in ("upper", "upper texture", "lower", "hair", "bag")))
    tuples = [(upper, texture, lower, "plain", hair, bag, "cap", "boots") for upper, texture, lower, hair, bag in kinds]

    share = np.mean([purpose_of(shared) == "pretraining" for shared in tuples])

    # 8,232 draws with probability 2/5: the standard deviation is .0054.
    assert share == pytest.approx(0.4, abs=0.02)


def test_reflectance_is_the_mean_of_the_material_plus_leaked_brightness_plus_noise():
    knobs = SyntheticKnobs(colour_leak=0.2, reflectance_noise=0.1, material_spread=0.5)

    # Leather reflects .25: half the way to .5 is .375. White at .9 brightness leaks .2 * .4 = .08. Noise: .1 * -1.
    assert reflectance("leather", (0.9, 0.9, 0.9), -1.0, knobs) == pytest.approx(0.375 + 0.08 - 0.1)


def test_reflectance_stays_where_a_camera_can_see_it():
    assert reflectance("rubber", (0.0, 0.0, 0.0), -9.0, DEFAULT) == 0.03
    assert reflectance("foliage", (1.0, 1.0, 1.0), 9.0, DEFAULT) == 0.95


def test_a_texture_that_does_not_survive_reflects_alike_in_both_colours():
    for garment in wardrobe(DEFAULT):
        assert garment.survives == (garment.reflectance[0] != garment.reflectance[1])


def test_a_texture_that_survives_can_be_told_apart_in_infrared():
    surviving = [garment for garment in wardrobe(DEFAULT) if garment.survives]

    assert surviving
    assert min(abs(low - high) for low, high in (garment.reflectance for garment in surviving)) >= 0.27


def test_every_texture_survives_when_the_knob_says_so_and_none_at_zero():
    always = wardrobe(DEFAULT.model_copy(update={"pattern_survival": 1.0}))
    never = wardrobe(DEFAULT.model_copy(update={"pattern_survival": 0.0}))

    assert all(garment.survives or garment.texture == "plain" for garment in always)
    assert not any(garment.survives for garment in never)


def test_brightness_says_little_about_reflectance_at_the_default_difficulty():
    garments = wardrobe(DEFAULT)
    brightness = [luminance(garment.albedo[0]) for garment in garments]
    reflected = [garment.reflectance[0] for garment in garments]

    assert abs(np.corrcoef(brightness, reflected)[0, 1]) < 0.35


def test_equal_colours_differ_in_infrared_and_different_ones_agree_often_enough():
    garments = wardrobe(DEFAULT)
    pairs = list(itertools.combinations(garments, 2))
    far = [(a, b) for a, b in pairs if distance(a, b) > 0.8]
    near = [(a, b) for a, b in pairs if distance(a, b) < 0.15]

    alike = np.mean([abs(a.reflectance[0] - b.reflectance[0]) < 0.05 for a, b in far])
    apart = np.mean([abs(a.reflectance[0] - b.reflectance[0]) > 0.2 for a, b in near])

    assert alike >= 0.05
    assert apart >= 0.3


def distance(first: Garment, second: Garment) -> float:
    return float(np.linalg.norm(np.subtract(first.albedo[0], second.albedo[0])))


def test_the_colour_table_has_twelve_distinct_colours():
    assert len(COLOURS) == len(set(COLOURS.values())) == 12


def test_an_unknown_difficulty_is_named_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        knobs_for("eesy")

    assert "eesy" in caught.value.message
    assert "easy, moderate, default, hard" in caught.value.hint


def test_blending_knobs_goes_from_one_end_to_the_other():
    assert blend_knobs(EASY, DEFAULT, 1.0) == DEFAULT
    # Half way between .7 and .15.
    assert blend_knobs(EASY, DEFAULT, 0.5).colour_leak == pytest.approx(0.425)
