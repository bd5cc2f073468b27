import dataclasses

import numpy as np
import pytest

from models.modality import Modality
from pipeline.data.synthetic.cameras import SYSU_STATIONS, noise_bank, station_cameras, wild_camera
from pipeline.data.synthetic.images import Studio, StudioSettings, draw_image
from pipeline.data.synthetic.knobs import DEFAULT, EASY, HARD
from pipeline.data.synthetic.people import Person, data_set_people
from pipeline.data.synthetic.raster import CAPSULE, ELLIPSE, SLAB, develop, fill
from pipeline.runtime.seeds import numpy_generator


def covered(row: tuple[float, ...]) -> np.ndarray:
    owner = np.empty((40, 40), np.int16)
    fill(np.array([row], np.float32), owner)
    return owner == 0


def test_an_image_does_not_depend_on_what_was_drawn_before(settings, studio):
    first = studio.draw(3, 4, 2)
    for number in (1, 2, 3):
        studio.draw(number, 3, 1)

    again = Studio(settings).draw(3, 4, 2)

    assert np.array_equal(first.pixels, again.pixels)
    assert first.caption == again.caption


def test_an_image_does_not_depend_on_how_many_people_there_are(settings, studio):
    fewer = Studio(dataclasses.replace(settings, num_people=3))

    assert np.array_equal(fewer.draw(2, 1, 1).pixels, studio.draw(2, 1, 1).pixels)


@pytest.mark.parametrize("change", [(4, 4, 2), (3, 5, 2), (3, 4, 1)])
def test_person_camera_and_number_each_change_the_instant(studio, change):
    assert studio.draw(*change).pose != studio.draw(3, 4, 2).pose


def test_another_seed_draws_another_picture(settings, studio):
    other = Studio(dataclasses.replace(settings, seed=6))

    assert not np.array_equal(other.draw(1, 1, 1).pixels, studio.draw(1, 1, 1).pixels)


def test_visible_images_have_three_channels_and_infrared_images_one(studio):
    visible, infrared = studio.draw(1, 1, 1), studio.draw(1, 3, 1)

    assert (visible.modality, visible.pixels.shape) == (Modality.VISIBLE, (64, 32, 3))
    assert (infrared.modality, infrared.pixels.shape) == (Modality.INFRARED, (64, 32))


@pytest.mark.parametrize("knobs", [EASY, DEFAULT, HARD])
def test_pictures_are_neither_black_nor_burnt_out(knobs):
    studio = Studio(StudioSettings(2, 12, knobs, SYSU_STATIONS, 64, 32))

    for person in range(1, 13):
        for camera in range(1, 7):
            pixels = studio.draw(person, camera, 1).pixels
            assert 25 < pixels.mean() < 230
            assert pixels.std() > 10


def without_chance(person: Person, modality: Modality) -> np.ndarray:
    """The person alone before a fixed camera at a fixed instant, without noise."""
    knobs = EASY.model_copy(update={"occlusion": 0.0, "noise": 0.0})
    camera = wild_camera(numpy_generator(1, "camera"), modality, knobs, 96, 48)
    return draw_image(numpy_generator(2, "instant"), person, camera, knobs, 96, 48).pixels.astype(float)


def test_dyeing_a_garment_changes_the_visible_image_and_not_the_infrared_one():
    person = data_set_people(1, 1, EASY)[0]
    ground = tuple(1.0 - value for value in person.upper.albedo[0])
    dyed = dataclasses.replace(person, upper=dataclasses.replace(person.upper, albedo=(ground, ground)))

    assert np.abs(without_chance(person, Modality.VISIBLE) - without_chance(dyed, Modality.VISIBLE)).max() > 40
    assert np.array_equal(without_chance(person, Modality.INFRARED), without_chance(dyed, Modality.INFRARED))


def test_another_material_changes_the_infrared_image_and_not_the_visible_one():
    person = data_set_people(1, 1, EASY)[0]
    other = dataclasses.replace(person, upper=dataclasses.replace(person.upper, reflectance=(0.05, 0.05)))

    assert np.array_equal(without_chance(person, Modality.VISIBLE), without_chance(other, Modality.VISIBLE))
    assert np.abs(without_chance(person, Modality.INFRARED) - without_chance(other, Modality.INFRARED)).max() > 40


@pytest.mark.parametrize("modality", Modality)
@pytest.mark.parametrize(
    ("attribute", "value"),
    [("hair", "long hair"), ("hat", "brimmed hat"), ("bag", "shoulder bag"), ("shoes", "boots")],
)
def test_what_should_survive_in_infrared_is_seen_in_both_modalities(modality, attribute, value):
    bare = dataclasses.replace(data_set_people(1, 1, EASY)[0], hair="bald", hat="none", bag="none", shoes="sandals")

    changed = np.abs(
        without_chance(bare, modality) - without_chance(dataclasses.replace(bare, **{attribute: value}), modality)
    )

    # At least one pixel in a hundred changes clearly.
    assert (changed.reshape(96, 48, -1).max(axis=2) > 20).mean() > 0.01


def test_cameras_two_and_three_see_the_same_room_from_the_same_spot():
    cameras = {camera.station: camera for camera in station_cameras(SYSU_STATIONS, 1, DEFAULT, 64, 32)}

    assert (cameras[2].elevation, cameras[2].facing, cameras[2].scale) == (
        cameras[3].elevation,
        cameras[3].facing,
        cameras[3].scale,
    )
    assert cameras[1].elevation != cameras[2].elevation


def test_an_ellipse_covers_as_many_samples_as_its_area():
    # Radii 6 and 3 pixels, four samples a pixel: 4 * pi * 6 * 3 = 226.2.
    assert covered((ELLIPSE, 10, 10, 6, 0, 0, 3, 0, 0, 0, 1)).sum() == pytest.approx(226.2, abs=8)


def test_a_slab_ends_flat_and_a_capsule_round():
    # From (10, 5) to (10, 15), half width 3: 10 x 6 pixels, and two half discs of 3 pixels more.
    slab = covered((SLAB, 10, 5, 3, 10, 15, 3, 0, 0, 0, 1))
    capsule = covered((CAPSULE, 10, 5, 3, 10, 15, 3, 0, 0, 0, 1))

    assert slab.sum() == 4 * 60
    assert capsule.sum() == pytest.approx(4 * (60 + np.pi * 9), abs=8)
    assert capsule[slab].all()


@pytest.mark.parametrize("channels", [1, 3])
def test_developing_without_noise_blurs_with_five_taps_and_applies_the_tone_curve(channels):
    rng = np.random.default_rng(1)
    scene = rng.random((9, 8, channels), np.float32)
    across, down = (np.array(taps, np.float32) for taps in ([0.1, 0.2, 0.4, 0.2, 0.1], [0.0, 0.25, 0.5, 0.25, 0.0]))
    tone = np.linspace(0, 255, 1024).round().astype(np.uint8)
    developed = np.empty(scene.shape, np.uint8)
    padded = np.pad(scene.astype(float), ((2, 2), (2, 2), (0, 0)), mode="edge")
    rows = sum(tap * padded[:, k : k + 8] for k, tap in enumerate(across.astype(float)))
    expected = sum(tap * rows[k : k + 9] for k, tap in enumerate(down.astype(float))) * 255

    develop(scene.copy(), across, down, np.zeros(8, np.float32), 0, np.zeros(2, np.float32), tone, developed)

    # Half a byte for rounding, and half a step of 1,024 steps.
    assert np.abs(developed - expected).max() <= 0.5 + 0.125 + 1e-3


def test_noise_has_the_spread_that_the_camera_says():
    scene = np.full((60, 50, 1), 0.25, np.float32)
    taps = np.array([0, 0, 1, 0, 0], np.float32)
    tone = np.linspace(0, 255, 1024).round().astype(np.uint8)
    developed = np.empty(scene.shape, np.uint8)

    develop(scene, taps, taps, noise_bank(), 7, np.array([0.08, 0.03], np.float32), tone, developed)

    # Shot noise .08 * sqrt(.25) = .04 and read noise .03 add to a standard deviation of .05.
    assert developed.std() / 255 == pytest.approx(0.05, rel=0.08)


def test_later_primitives_hide_earlier_ones():
    owner = np.empty((40, 40), np.int16)
    disc = (ELLIPSE, 10, 10, 6, 0, 0, 6, 0, 0, 0, 1)
    smaller = (ELLIPSE, 10, 10, 2, 0, 0, 2, 0, 0, 0, 1)

    fill(np.array([disc, smaller], np.float32), owner)

    assert owner[20, 20] == 1
    assert owner[20, 10] == 0
    assert owner[0, 0] == -1
