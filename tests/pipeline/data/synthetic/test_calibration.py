"""Is the drawn task hard in the way the real one is? Colour must not carry over between modalities, meaning must."""

from dataclasses import dataclass

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.captions import Attributes
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import DEFAULT
from pipeline.data.synthetic.people import Person

NUM_PEOPLE = 40
CHANCE = 1 / NUM_PEOPLE
COLOURLESS = ("upper", "lower", "hair", "hat", "bag", "shoes", "upper texture", "lower texture")


@dataclass(frozen=True)
class Seen:
    """One image of a person."""

    person: Person
    pixels: np.ndarray
    shown: Attributes


@pytest.fixture(scope="module")
def seen() -> PerModality[list[Seen]]:
    studio = Studio(StudioSettings(1, NUM_PEOPLE, DEFAULT, SYSU_STATIONS, 64, 32))
    images = PerModality.build(lambda _: [])
    for number in range(1, NUM_PEOPLE + 1):
        for station in SYSU_STATIONS:
            for index in (1, 2):
                portrait = studio.draw(number, station.number, index)
                images[station.modality].append(Seen(studio.people[number - 1], portrait.pixels, portrait.shown))
    return images


def rank1(similarity: np.ndarray, seen: PerModality[list[Seen]]) -> float:
    """Share of the infrared images whose most similar visible image shows the same person."""
    people = seen.map(lambda some: np.array([one.person.number for one in some]))
    return float((people.visible[similarity.argmax(axis=1)] == people.infrared).mean())


def test_matching_histograms_of_brightness_across_modalities_is_hardly_better_than_chance(seen):
    def histograms(images: list[Seen]) -> np.ndarray:
        grey = [one.pixels if one.pixels.ndim == 2 else one.pixels.mean(axis=2) for one in images]
        counts = np.stack([np.histogram(one, bins=16, range=(0, 256))[0] for one in grey]) / (64 * 32)
        return np.sqrt(counts)

    bands = seen.map(histograms)

    assert rank1(bands.infrared @ bands.visible.T, seen) <= 3 * CHANCE


def test_matching_what_both_modalities_show_and_the_body_finds_the_person(seen):
    def agreement(infrared: Seen, visible: Seen) -> float:
        texture_fades = {
            f"{slot} texture"
            for slot, garment in (("upper", infrared.person.upper), ("lower", infrared.person.lower))
            if not garment.survives
        }
        both = [name for name in COLOURLESS if name in infrared.shown and name in visible.shown]
        both = [name for name in both if name not in texture_fades]
        alike = sum(infrared.shown[name] == visible.shown[name] for name in both) / len(both)
        return alike - abs(infrared.person.body.height - visible.person.body.height)

    similarity = np.array([[agreement(one, other) for other in seen.visible] for one in seen.infrared])

    assert rank1(similarity, seen) >= 0.8


@pytest.mark.parametrize("modality", Modality)
def test_an_image_shows_enough_to_be_described(seen, modality):
    assert min(len(one.shown) for one in seen[modality]) >= 5
