"""Synthetic people: garments, body, hair and bags, and the attributes that are unique in infrared."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

import numpy as np

from pipeline.data.synthetic.knobs import SyntheticKnobs
from pipeline.runtime.seeds import numpy_generator

Colour = tuple[float, float, float]

COLOURS: Final[dict[str, Colour]] = {
    "black": (0.07, 0.07, 0.08), "white": (0.92, 0.92, 0.90), "grey": (0.50, 0.50, 0.50), "red": (0.75, 0.10, 0.12),
    "orange": (0.90, 0.48, 0.10), "yellow": (0.90, 0.82, 0.18), "green": (0.15, 0.52, 0.20),
    "blue": (0.18, 0.40, 0.85), "navy": (0.09, 0.12, 0.34), "purple": (0.45, 0.18, 0.60), "pink": (0.93, 0.55, 0.70),
    "brown": (0.42, 0.27, 0.15),
}  # fmt: skip
UPPER_KINDS: Final = ("T-shirt", "long-sleeved top", "shirt", "jacket", "hoodie", "long coat", "dress")
LOWER_KINDS: Final = ("trousers", "jeans", "shorts", "short skirt", "long skirt", "leggings")
TEXTURES: Final = ("plain", "horizontal stripes", "vertical stripes", "checks", "dots", "block", "two-tone")

# Near-infrared reflectance, chosen (not measured): one value a material.
REFLECTANCE: Final[dict[str, float]] = {
    "cotton": 0.55, "wool": 0.60, "denim": 0.50, "synthetic": 0.70, "leather": 0.25, "carbon-black": 0.12,
    "rubber": 0.15, "skin": 0.62, "hair": 0.45, "foliage": 0.80,
}  # fmt: skip
_MATERIALS: Final[dict[str, tuple[str, ...]]] = {
    "T-shirt": ("cotton", "synthetic"), "long-sleeved top": ("cotton", "wool", "synthetic"),
    "shirt": ("cotton", "synthetic"), "jacket": ("leather", "synthetic", "denim"),
    "hoodie": ("cotton", "synthetic", "wool"), "long coat": ("wool", "synthetic", "leather"),
    "dress": ("cotton", "synthetic", "wool"), "trousers": ("cotton", "wool", "synthetic"), "jeans": ("denim",),
    "shorts": ("cotton", "synthetic", "denim"), "short skirt": ("cotton", "wool", "leather"),
    "long skirt": ("cotton", "wool", "synthetic"), "leggings": ("synthetic", "cotton"),
}  # fmt: skip
_JEANS_COLOURS: Final = ("black", "grey", "blue", "navy", "white")
# A texture is legible when its two colours are this far apart, in brightness or in reflectance.
_LEGIBLE: Final = 0.28
Purpose = Literal["pretraining", "evaluation"]
SharedTuple = tuple[str, str, str, str, str, str, str, str]
HAIR: Final = ("bald", "short hair", "medium hair", "long hair", "a ponytail", "a bun")
BAGS: Final = ("none", "backpack", "shoulder bag", "handbag")
HATS: Final = ("none", "cap", "beanie", "brimmed hat")
SHOES: Final = ("trainers", "boots", "sandals")
BARE_LEGS: Final = "bare legs"
"""The lower garment of a person who wears a dress."""
_HAIR_COLOURS: Final[tuple[Colour, ...]] = (
    (0.08, 0.06, 0.05), (0.22, 0.14, 0.08), (0.42, 0.28, 0.14), (0.72, 0.58, 0.32), (0.45, 0.18, 0.08),
    (0.66, 0.66, 0.66),
)  # fmt: skip
_SKIN: Final[tuple[Colour, ...]] = ((0.86, 0.68, 0.56), (0.76, 0.56, 0.42), (0.58, 0.40, 0.28), (0.38, 0.25, 0.17))
_PRETRAINING_RESIDUES: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class Garment:
    """One garment. Colours and reflectances are pairs: the ground, then the texture's second tone.

    `survives`: the texture is visible in infrared; otherwise both reflectances are equal. `period` is in body heights.
    """

    kind: str
    material: str
    colour: str
    second_colour: str
    texture: str
    period: float
    albedo: tuple[Colour, Colour]
    reflectance: tuple[float, float]
    survives: bool


def luminance(colour: Colour) -> float:
    """Brightness of a colour in a visible camera, in [0, 1]."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def reflectance(material: str, colour: Colour, noise: float, knobs: SyntheticKnobs) -> float:
    """Infrared reflectance of a dyed material, in [.03, .95]; `noise` is a standard normal value."""
    mean = 0.5 + knobs.material_spread * (REFLECTANCE[material] - 0.5)
    leaked = knobs.colour_leak * (luminance(colour) - 0.5)
    return min(max(mean + leaked + knobs.reflectance_noise * noise, 0.03), 0.95)


def make_garment(rng: np.random.Generator, kind: str, knobs: SyntheticKnobs) -> Garment:
    """Sample material, colours and texture of one garment."""
    names = list(COLOURS)
    palette = list(_JEANS_COLOURS) if kind == "jeans" else names
    colour = palette[int(rng.integers(len(palette)))]
    ground = _dyed_colour(rng, colour)
    texture = _choose_texture(rng, kind)
    contrasting = [name for name in names if abs(luminance(COLOURS[name]) - luminance(ground)) > _LEGIBLE]
    second_colour = contrasting[int(rng.integers(len(contrasting)))]
    second = _dyed_colour(rng, second_colour)
    material = _MATERIALS[kind][int(rng.integers(len(_MATERIALS[kind])))]
    if colour == "black" and rng.random() < 0.5:
        material = "carbon-black"
    survives = texture != "plain" and bool(rng.random() < knobs.pattern_survival)
    first_noise, second_noise = rng.standard_normal(2)
    rho = reflectance(material, ground, float(first_noise), knobs)
    second_rho = rho
    if survives:
        base = "cotton" if material == "carbon-black" else material
        second_rho = _legible(rho, reflectance(base, second, float(second_noise), knobs))
    period = float(rng.uniform(0.045, 0.085))
    return Garment(
        kind, material, colour, second_colour, texture, period, (ground, second), (rho, second_rho), survives
    )


def make_wardrobe(rng: np.random.Generator, knobs: SyntheticKnobs) -> tuple[tuple[Garment, ...], tuple[Garment, ...]]:
    """The upper and lower garments shared by all people of one data set; every kind occurs."""
    num_uppers = max(len(UPPER_KINDS), round(0.58 * knobs.wardrobe))
    num_lowers = max(len(LOWER_KINDS), knobs.wardrobe - num_uppers)
    uppers = tuple(make_garment(rng, UPPER_KINDS[i % len(UPPER_KINDS)], knobs) for i in range(num_uppers))
    lowers = tuple(make_garment(rng, LOWER_KINDS[i % len(LOWER_KINDS)], knobs) for i in range(num_lowers))
    return uppers, lowers


def _dyed_colour(rng: np.random.Generator, name: str) -> Colour:
    jitter = rng.normal(0.0, 0.03, 3)
    red, green, blue = (
        min(max(value + float(move), 0.03), 0.97) for value, move in zip(COLOURS[name], jitter, strict=True)
    )
    return red, green, blue


def _choose_texture(rng: np.random.Generator, kind: str) -> str:
    if kind in ("jeans", "leggings", "jacket"):
        return TEXTURES[int(rng.choice(7, p=(0.55, 0.05, 0.1, 0.05, 0.05, 0.1, 0.1)))]
    return TEXTURES[int(rng.choice(7, p=(0.28, 0.14, 0.12, 0.12, 0.12, 0.11, 0.11)))]


def _legible(first: float, second: float) -> float:
    """Move the second tone away from the first until they differ visibly."""
    if abs(second - first) >= _LEGIBLE:
        return second
    brighter = first + _LEGIBLE
    darker = first - _LEGIBLE
    upwards = (second >= first and brighter <= 0.95) or darker < 0.03
    return brighter if upwards else darker


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
    """A plain surface in both modalities."""

    albedo: Colour
    reflectance: float


@dataclass(frozen=True, slots=True)
class Person:
    """The properties of a person that are equal in all images."""

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
        """Attributes that remain in infrared whatever the dyes: unique in a data set."""
        upper, lower = self.upper, self.lower
        legs = (BARE_LEGS, "plain") if upper.kind == "dress" else (lower.kind, lower.texture)
        return upper.kind, upper.texture, *legs, self.hair, self.bag, self.hat, self.shoes


def purpose_of(shared: SharedTuple) -> Purpose:
    """Whether a shared tuple is reserved for pre-training (two fifths) or for data sets.

    >>> purpose_of(("T-shirt", "plain", "jeans", "plain", "bald", "none", "none", "boots"))
    'pretraining'
    """
    digest = hashlib.sha256("|".join(shared).encode()).digest()
    return "pretraining" if int.from_bytes(digest[:8], "little") % 5 in _PRETRAINING_RESIDUES else "evaluation"


def data_set_people(seed: int, num_people: int, knobs: SyntheticKnobs) -> tuple[Person, ...]:
    """The people of one data set, numbered from 1, with a shared wardrobe and different shared tuples.

    The first people of a larger set are those of a smaller one. Cost: about .15 ms a person.
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


def fresh_people(seed: int, knobs: SyntheticKnobs) -> Iterator[Person]:
    """An endless series of people for pre-training, with own garments and shared tuples that no data set uses."""
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
    rng: np.random.Generator, number: int, garments: tuple[Garment, Garment, Garment], knobs: SyntheticKnobs
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


def _tone(rng: np.random.Generator, material: str, albedo: Colour, knobs: SyntheticKnobs) -> Tone:
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
