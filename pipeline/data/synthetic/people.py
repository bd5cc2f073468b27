"""Who is drawn: body, hair, clothes and bags of one person, and the tuple that tells people apart in infrared."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

import numpy as np

from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.wardrobe import (
    LOWER_KINDS,
    UPPER_KINDS,
    Colour,
    Garment,
    luminance,
    make_garment,
    make_wardrobe,
    reflectance,
)
from pipeline.runtime.seeds import numpy_generator

Purpose = Literal["pretraining", "evaluation"]
SharedTuple = tuple[str, str, str, str, str, str, str, str]

HAIR: Final = ("bald", "short hair", "medium hair", "long hair", "a ponytail", "a bun")
BAGS: Final = ("none", "backpack", "shoulder bag", "handbag")
HATS: Final = ("none", "cap", "beanie", "brimmed hat")
SHOES: Final = ("trainers", "boots", "sandals")
BARE_LEGS: Final = "bare legs"
"""What stands in the place of the lower garment of a person who wears a dress."""
_HAIR_COLOURS: Final[tuple[Colour, ...]] = (
    (0.08, 0.06, 0.05),
    (0.22, 0.14, 0.08),
    (0.42, 0.28, 0.14),
    (0.72, 0.58, 0.32),
    (0.45, 0.18, 0.08),
    (0.66, 0.66, 0.66),
)
_SKIN: Final[tuple[Colour, ...]] = ((0.86, 0.68, 0.56), (0.76, 0.56, 0.42), (0.58, 0.40, 0.28), (0.38, 0.25, 0.17))
_PRETRAINING_RESIDUES: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class Body:
    """Build of one person. Height is in metres, the rest in body heights (`limb` and `head` are factors around 1)."""

    height: float
    shoulder: float
    hip: float
    leg: float
    head: float
    limb: float


@dataclass(frozen=True, slots=True)
class Tone:
    """A plain surface as both kinds of camera see it."""

    albedo: Colour
    reflectance: float


@dataclass(frozen=True, slots=True)
class Person:
    """Everything about a person that no camera and no moment changes."""

    number: int
    body: Body
    skin: Tone
    hair: str
    hair_tone: Tone
    upper: Garment
    under: Garment
    lower: Garment
    shoes: str
    shoe_tone: Tone
    bag: str
    bag_side: int
    bag_tone: Tone
    hat: str
    hat_tone: Tone

    @property
    def shared_tuple(self) -> SharedTuple:
        """What survives in infrared whatever the dyes: no two people of one data set have the same."""
        upper, lower = self.upper, self.lower
        legs = (BARE_LEGS, "plain") if upper.kind == "dress" else (lower.kind, lower.texture)
        return upper.kind, upper.texture, *legs, self.hair, self.bag, self.hat, self.shoes


def purpose_of(shared: SharedTuple) -> Purpose:
    """The side that a shared tuple belongs to; two fifths are for pre-training, the rest for data sets.

    >>> purpose_of(("T-shirt", "plain", "jeans", "plain", "bald", "none", "none", "boots"))
    'pretraining'
    """
    digest = hashlib.sha256("|".join(shared).encode()).digest()
    return "pretraining" if int.from_bytes(digest[:8], "little") % 5 in _PRETRAINING_RESIDUES else "evaluation"


def data_set_people(seed: int, num_people: int, knobs: DrawnKnobs) -> tuple[Person, ...]:
    """The people of one data set, numbered from 1, who share a wardrobe and differ in their shared tuples.

    The first people of a larger set are the people of a smaller one. Cost: about .15 ms a person.
    """
    uppers, lowers = make_wardrobe(numpy_generator(seed, "drawn", "wardrobe"), knobs)
    people: list[Person] = []
    taken: set[SharedTuple] = set()
    for number in range(1, num_people + 1):
        for attempt in count():
            rng = numpy_generator(seed, "drawn", "person", number, attempt)
            upper = uppers[int(rng.integers(len(uppers)))]
            under = uppers[int(rng.integers(len(uppers)))]
            lower = lowers[int(rng.integers(len(lowers)))]
            person = _make_person(rng, number, (upper, under, lower), knobs)
            if person.shared_tuple not in taken and purpose_of(person.shared_tuple) == "evaluation":
                break
        taken.add(person.shared_tuple)
        people.append(person)
    return tuple(people)


def fresh_people(seed: int, knobs: DrawnKnobs) -> Iterator[Person]:
    """People for pre-training without end: own garments each, and never a shared tuple that a data set may hold."""
    for number in count(1):
        for attempt in count():
            rng = numpy_generator(seed, "drawn", "pretraining", number, attempt)
            garments = (
                make_garment(rng, _pick(rng, UPPER_KINDS), knobs),
                make_garment(rng, _pick(rng, UPPER_KINDS), knobs),
                make_garment(rng, _pick(rng, LOWER_KINDS), knobs),
            )
            person = _make_person(rng, number, garments, knobs)
            if purpose_of(person.shared_tuple) == "pretraining":
                break
        yield person


def _make_person(
    rng: np.random.Generator, number: int, garments: tuple[Garment, Garment, Garment], knobs: DrawnKnobs
) -> Person:
    upper, under, lower = garments
    return Person(
        number=number,
        body=_make_body(rng),
        skin=_tone(rng, "skin", _SKIN[int(rng.integers(len(_SKIN)))], knobs),
        hair=_pick(rng, HAIR, (0.1, 0.26, 0.18, 0.18, 0.16, 0.12)),
        hair_tone=_tone(rng, "hair", _HAIR_COLOURS[int(rng.integers(len(_HAIR_COLOURS)))], knobs),
        upper=upper,
        under=under,
        lower=lower,
        shoes=_pick(rng, SHOES),
        shoe_tone=_tone(rng, "rubber", _dye(rng), knobs),
        bag=_pick(rng, BAGS, (0.3, 0.3, 0.2, 0.2)),
        bag_side=1 if rng.random() < 0.5 else -1,
        bag_tone=_tone(rng, "synthetic" if rng.random() < 0.5 else "leather", _dye(rng), knobs),
        hat=_pick(rng, HATS, (0.46, 0.2, 0.18, 0.16)),
        hat_tone=_tone(rng, "wool" if rng.random() < 0.5 else "cotton", _dye(rng), knobs),
    )


def _make_body(rng: np.random.Generator) -> Body:
    return Body(
        height=float(np.clip(rng.normal(1.72, 0.1), 1.48, 1.98)),
        shoulder=float(np.clip(rng.normal(0.245, 0.028), 0.19, 0.31)),
        hip=float(np.clip(rng.normal(0.195, 0.026), 0.15, 0.26)),
        leg=float(np.clip(rng.normal(0.47, 0.018), 0.43, 0.51)),
        head=float(np.clip(rng.normal(1.0, 0.08), 0.85, 1.18)),
        limb=float(np.clip(rng.normal(1.0, 0.17), 0.7, 1.4)),
    )


def _tone(rng: np.random.Generator, material: str, albedo: Colour, knobs: DrawnKnobs) -> Tone:
    # Skin and hair vary little in infrared; dyed things vary as garments do.
    noise = float(rng.standard_normal()) * (0.3 if material in ("skin", "hair") else 1.0)
    return Tone(albedo, reflectance(material, albedo, noise, knobs))


def _dye(rng: np.random.Generator) -> Colour:
    value = rng.uniform(0.08, 0.9)
    tint = rng.normal(0.0, 0.12, 3)
    red, green, blue = (min(max(float(value + move), 0.04), 0.95) for move in tint)
    colour = (red, green, blue)
    return colour if luminance(colour) > 0.05 else (0.1, 0.1, 0.1)


def _pick(rng: np.random.Generator, options: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    if weights is None:
        return options[int(rng.integers(len(options)))]
    return options[int(np.searchsorted(np.cumsum(weights), rng.random() * sum(weights), side="right"))]
