"""One sentence an image, from a small grammar that names only attributes visible in this view and modality."""

from typing import Final

import numpy as np

from models.modality import Modality
from pipeline.data.synthetic.people import (
    BAGS,
    BARE_LEGS,
    COLOURS,
    HAIR,
    HATS,
    LOWER_KINDS,
    SHOES,
    TEXTURES,
    UPPER_KINDS,
    Garment,
    Person,
)
from pipeline.data.synthetic.pose import Pose

Attributes = dict[str, str]
"""Attribute name to value; only attributes that the image shows."""

ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "upper": UPPER_KINDS,
    "upper texture": TEXTURES,
    "upper colour": tuple(COLOURS),
    "lower": (*LOWER_KINDS, BARE_LEGS),
    "lower texture": TEXTURES,
    "lower colour": tuple(COLOURS),
    "hair": HAIR,
    "bag": BAGS,
    "hat": HATS,
    "shoes": SHOES,
    "view": ("front", "back", "left", "right"),
    "upper tone": ("light", "dark"),
    "lower tone": ("light", "dark"),
}
"""Every attribute that a caption can name, and its values."""

_VIEW: Final = {
    "front": "seen from the front", "back": "seen from behind", "left": "seen from the left",
    "right": "seen from the right",
}  # fmt: skip
_TEXTURE: Final = {
    "plain": ("plain", ""), "horizontal stripes": ("", "with horizontal stripes"),
    "vertical stripes": ("", "with vertical stripes"), "checks": ("checked", ""), "dots": ("dotted", ""),
    "block": ("", "with a broad band"), "two-tone": ("two-tone", ""),
}  # fmt: skip
# A garment is light above the first, dark below the second.
_LIGHT, _DARK = 0.55, 0.42
# Colour guesses for a garment that is bright, dark, or neither in a grey image: chosen by us.
_GUESSES: Final[dict[str, tuple[str, ...]]] = {
    "light": ("white", "grey", "pink"),
    "dark": ("black", "navy", "brown"),
    "neither": ("grey", "blue", "brown"),
}
_BLIND_GUESS: Final = 0.25
"""Probability that a guessed colour has nothing to do with the picture."""


def visible_attributes(person: Person, pose: Pose, modality: Modality) -> Attributes:
    """Attributes of a person that one image shows, by view, occlusion and modality."""
    shown: Attributes = {"view": pose.view, "hat": person.hat, "upper": person.upper.kind}
    dressed = person.upper.kind == "dress"
    shown["lower"] = BARE_LEGS if dressed else person.lower.kind
    garments = [("upper", person.upper)] if dressed else [("upper", person.upper), ("lower", person.lower)]
    for slot, garment in garments:
        shown.update(_surface(slot, garment, modality))
    if person.hat == "none" or person.hair not in ("bald", "short hair", "a bun"):
        shown["hair"] = person.hair
    if abs(pose.shift_y) < 0.04:
        shown["shoes"] = person.shoes
    if _shows_bag(person, pose):
        shown["bag"] = person.bag
    return shown


def compose_caption(shown: Attributes, rng: np.random.Generator, modality: Modality, drop: float, swap: float) -> str:
    """Write a caption that omits each attribute with probability `drop` and falsifies it with `swap`."""
    return caption_of(name_attributes(shown, rng, drop, swap), modality)


def name_attributes(shown: Attributes, rng: np.random.Generator, drop: float, swap: float) -> Attributes:
    """Attributes of a caption: each is omitted with probability `drop` and falsified with `swap`."""
    named: Attributes = {}
    for attribute, value in shown.items():
        chance = rng.random()
        if chance < swap:
            options = ATTRIBUTES[attribute]
            named[attribute] = options[int(rng.integers(len(options)))]
        elif chance < 1.0 - drop:
            named[attribute] = value
    return named


def guess_colours(named: Attributes, person: Person, rng: np.random.Generator, share: float) -> Attributes:
    """Add garment colours to an infrared caption, as captioning models do although infrared shows none.

    A bright garment is called white, grey or pink, a dark one black, navy or brown, whatever its dye; sometimes the
    colour is arbitrary. So colours disagree between a person's captions in the two modalities. `share` is the
    probability that a named garment gets a colour; `rng` uses equally many numbers whatever is named.
    """
    guessed = dict(named)
    for slot, garment in (("upper", person.upper), ("lower", person.lower)):
        wanted, blind, pick = rng.random(3)
        is_named = any(name in named for name in (slot, f"{slot} texture", f"{slot} tone"))
        if is_named and named.get(slot) != BARE_LEGS and wanted < share:
            options = tuple(COLOURS) if blind < _BLIND_GUESS else _GUESSES[_tone(garment) or "neither"]
            guessed[f"{slot} colour"] = options[int(pick * len(options))]
    return guessed


def caption_of(named: Attributes, modality: Modality) -> str:
    """The sentence that names exactly these attributes.

    >>> caption_of({"upper": "shirt", "upper colour": "red", "hat": "cap", "view": "back"}, Modality.VISIBLE)
    'a person in a red shirt, wearing a cap, seen from behind'
    >>> caption_of({"hair": "long hair", "lower": "jeans", "lower tone": "dark"}, Modality.INFRARED)
    'an infrared image of a person with long hair in dark jeans'
    """
    words = ["an infrared image of a person" if modality is Modality.INFRARED else "a person"]
    if "hair" in named:
        words.append("who is bald" if named["hair"] == "bald" else f"with {named['hair']}")
    garments = [phrase for slot in ("upper", "lower") if (phrase := _garment_phrase(slot, named))]
    if garments:
        words.append("in " + " and ".join(garments))
    sentence = " ".join(words)
    if "shoes" in named:
        sentence += f", in {named['shoes']}" if not garments else f" and {named['shoes']}"
    if "hat" in named:
        sentence += ", without a hat" if named["hat"] == "none" else f", wearing a {named['hat']}"
    if "bag" in named:
        sentence += ", without a bag" if named["bag"] == "none" else f", carrying a {named['bag']}"
    if "view" in named:
        sentence += f", {_VIEW[named['view']]}"
    return sentence


def _surface(slot: str, garment: Garment, modality: Modality) -> Attributes:
    if modality is Modality.VISIBLE:
        return {f"{slot} colour": garment.colour, f"{slot} texture": garment.texture}
    surface = {f"{slot} texture": garment.texture if garment.survives else "plain"}
    tone = _tone(garment)
    return surface if tone is None else surface | {f"{slot} tone": tone}


def _tone(garment: Garment) -> str | None:
    mean = sum(garment.reflectance) / 2
    if _DARK <= mean <= _LIGHT:
        return None
    return "light" if mean > _LIGHT else "dark"


def _shows_bag(person: Person, pose: Pose) -> bool:
    """The body covers a backpack in front views and a side bag on the averted side."""
    if person.bag in ("none", "shoulder bag"):
        return True
    if person.bag == "backpack":
        return pose.view != "front"
    far_side = {"left": -1, "right": 1}.get(pose.view)
    return person.bag_side != far_side


def _garment_phrase(slot: str, named: Attributes) -> str:
    kind, texture = named.get(slot), named.get(f"{slot} texture")
    surface = named.get(f"{slot} colour") or named.get(f"{slot} tone")
    if kind is None and texture is None and surface is None:
        return ""
    before, after = _TEXTURE[texture] if texture else ("", "")
    noun = kind or ("top" if slot == "upper" else "lower garment")
    phrase = " ".join(word for word in (before, surface or "", noun, after) if word)
    plural = noun.endswith("s") and noun != "dress"
    return phrase if plural else f"a {phrase}"
