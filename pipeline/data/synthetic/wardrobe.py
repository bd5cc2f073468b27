"""Garments: what they are called, what they are made of, and how they look to either kind of camera."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.data.synthetic.knobs import DrawnKnobs

Colour = tuple[float, float, float]

COLOURS: Final[dict[str, Colour]] = {
    "black": (0.07, 0.07, 0.08),
    "white": (0.92, 0.92, 0.90),
    "grey": (0.50, 0.50, 0.50),
    "red": (0.75, 0.10, 0.12),
    "orange": (0.90, 0.48, 0.10),
    "yellow": (0.90, 0.82, 0.18),
    "green": (0.15, 0.52, 0.20),
    "blue": (0.18, 0.40, 0.85),
    "navy": (0.09, 0.12, 0.34),
    "purple": (0.45, 0.18, 0.60),
    "pink": (0.93, 0.55, 0.70),
    "brown": (0.42, 0.27, 0.15),
}
UPPER_KINDS: Final = ("T-shirt", "long-sleeved top", "shirt", "jacket", "hoodie", "long coat", "dress")
LOWER_KINDS: Final = ("trousers", "jeans", "shorts", "short skirt", "long skirt", "leggings")
TEXTURES: Final = ("plain", "horizontal stripes", "vertical stripes", "checks", "dots", "block", "two-tone")

# Near-infrared reflectance, chosen (not measured): one value a material.
REFLECTANCE: Final[dict[str, float]] = {
    "cotton": 0.55,
    "wool": 0.60,
    "denim": 0.50,
    "synthetic": 0.70,
    "leather": 0.25,
    "carbon-black": 0.12,
    "rubber": 0.15,
    "skin": 0.62,
    "hair": 0.45,
    "foliage": 0.80,
}
_MATERIALS: Final[dict[str, tuple[str, ...]]] = {
    "T-shirt": ("cotton", "synthetic"),
    "long-sleeved top": ("cotton", "wool", "synthetic"),
    "shirt": ("cotton", "synthetic"),
    "jacket": ("leather", "synthetic", "denim"),
    "hoodie": ("cotton", "synthetic", "wool"),
    "long coat": ("wool", "synthetic", "leather"),
    "dress": ("cotton", "synthetic", "wool"),
    "trousers": ("cotton", "wool", "synthetic"),
    "jeans": ("denim",),
    "shorts": ("cotton", "synthetic", "denim"),
    "short skirt": ("cotton", "wool", "leather"),
    "long skirt": ("cotton", "wool", "synthetic"),
    "leggings": ("synthetic", "cotton"),
}
_JEANS_COLOURS: Final = ("black", "grey", "blue", "navy", "white")
# A texture is legible when its two colours are this far apart, in brightness or in reflectance.
_LEGIBLE: Final = 0.28


@dataclass(frozen=True, slots=True)
class Garment:
    """One garment. Colours and reflectances come in pairs: the ground, then the texture's second tone.

    `survives` says whether the texture is seen in infrared; if not, both reflectances are equal.
    `period` is in body heights.
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
    """Brightness that a visible camera gives a colour, in [0, 1]."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def reflectance(material: str, colour: Colour, noise: float, knobs: DrawnKnobs) -> float:
    """Infrared reflectance of a dyed material, in [.03, .95]; `noise` is a standard normal value drawn once."""
    mean = 0.5 + knobs.material_spread * (REFLECTANCE[material] - 0.5)
    leaked = knobs.colour_leak * (luminance(colour) - 0.5)
    return min(max(mean + leaked + knobs.reflectance_noise * noise, 0.03), 0.95)


def make_garment(rng: np.random.Generator, kind: str, knobs: DrawnKnobs) -> Garment:
    """Draw material, colours and texture of one garment."""
    names = list(COLOURS)
    palette = list(_JEANS_COLOURS) if kind == "jeans" else names
    colour = palette[int(rng.integers(len(palette)))]
    ground = _dyed(rng, colour)
    texture = _texture(rng, kind)
    contrasting = [name for name in names if abs(luminance(COLOURS[name]) - luminance(ground)) > _LEGIBLE]
    second_colour = contrasting[int(rng.integers(len(contrasting)))]
    second = _dyed(rng, second_colour)
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


def make_wardrobe(rng: np.random.Generator, knobs: DrawnKnobs) -> tuple[tuple[Garment, ...], tuple[Garment, ...]]:
    """The upper and lower garments that all people of one data set share; every kind occurs."""
    num_uppers = max(len(UPPER_KINDS), round(0.58 * knobs.wardrobe))
    num_lowers = max(len(LOWER_KINDS), knobs.wardrobe - num_uppers)
    uppers = tuple(make_garment(rng, UPPER_KINDS[i % len(UPPER_KINDS)], knobs) for i in range(num_uppers))
    lowers = tuple(make_garment(rng, LOWER_KINDS[i % len(LOWER_KINDS)], knobs) for i in range(num_lowers))
    return uppers, lowers


def _dyed(rng: np.random.Generator, name: str) -> Colour:
    jitter = rng.normal(0.0, 0.03, 3)
    red, green, blue = (
        min(max(value + float(move), 0.03), 0.97) for value, move in zip(COLOURS[name], jitter, strict=True)
    )
    return red, green, blue


def _texture(rng: np.random.Generator, kind: str) -> str:
    if kind in ("jeans", "leggings", "jacket"):
        return TEXTURES[int(rng.choice(7, p=(0.55, 0.05, 0.1, 0.05, 0.05, 0.1, 0.1)))]
    return TEXTURES[int(rng.choice(7, p=(0.28, 0.14, 0.12, 0.12, 0.12, 0.11, 0.11)))]


def _legible(first: float, second: float) -> float:
    """Move the second tone away from the first until both can be told apart."""
    if abs(second - first) >= _LEGIBLE:
        return second
    brighter = first + _LEGIBLE
    darker = first - _LEGIBLE
    upwards = (second >= first and brighter <= 0.95) or darker < 0.03
    return brighter if upwards else darker
