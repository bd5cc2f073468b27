"""How hard a drawn data set is: the knobs, and presets that turn them together."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import ConfigError


class DrawnKnobs(BaseModel):
    """What makes the drawn task easy or hard. Bounds are those that the pictures stay legible in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    colour_leak: float = Field(0.15, ge=0.0, le=1.0)
    """How much of a garment's visible brightness is seen in infrared; 0 is the real world's worst case."""
    reflectance_noise: float = Field(0.18, ge=0.0, le=0.5)
    """Standard deviation of a garment's infrared reflectance around the mean of its material."""
    material_spread: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on the distance of each material's reflectance from one half."""
    pattern_survival: float = Field(0.5, ge=0.0, le=1.0)
    """Probability that the two colours of a texture also differ in infrared."""
    wardrobe: int = Field(60, ge=14)
    """Number of distinct garments shared by all people; fewer make people more alike."""
    pose_spread: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on stride, arm swing and lean."""
    view_spread: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on the spread of facing angles around the way a camera usually sees people."""
    camera_shift: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on the differences in light, colour temperature, tone and elevation between cameras."""
    background: float = Field(1.0, ge=0.0, le=1.5)
    """Contrast and saturation of the static backgrounds."""
    blur: float = Field(1.0, ge=0.0, le=2.0)
    """Factor on defocus and motion blur."""
    noise: float = Field(1.0, ge=0.0, le=2.0)
    """Factor on shot and read noise."""
    occlusion: float = Field(0.15, ge=0.0, le=1.0)
    """Probability that a pole, a plant or another body hides part of a person."""
    crop_jitter: float = Field(0.06, ge=0.0, le=0.2)
    """Standard deviation of the detector's box, as a share of its size; truncation at head and feet follows from it."""
    missing_camera: float = Field(0.1, ge=0.0, le=0.5)
    """Probability that a person never passes a camera; two visible and one infrared camera are always kept."""
    caption_noise: float = Field(0.1, ge=0.0, le=1.0)
    """Probability that an attribute is left out of a caption, and a third of it that it is swapped for a wrong one."""
    infrared_colours: float = Field(0.5, ge=0.0, le=1.0)
    """Probability that the caption of an infrared image gives a garment a colour, which nobody can see there."""


EASY = DrawnKnobs(
    colour_leak=0.7,
    reflectance_noise=0.06,
    material_spread=0.35,
    pattern_survival=1.0,
    wardrobe=120,
    pose_spread=0.7,
    view_spread=0.7,
    camera_shift=0.4,
    background=0.35,
    blur=0.4,
    noise=0.4,
    occlusion=0.05,
    crop_jitter=0.03,
    missing_camera=0.1,
    caption_noise=0.05,
    infrared_colours=0.25,
)
DEFAULT = DrawnKnobs()
HARD = DrawnKnobs(
    colour_leak=0.0,
    reflectance_noise=0.24,
    material_spread=1.2,
    pattern_survival=0.3,
    wardrobe=40,
    pose_spread=1.2,
    view_spread=1.2,
    camera_shift=1.3,
    background=1.3,
    blur=1.4,
    noise=1.5,
    occlusion=0.25,
    crop_jitter=0.08,
    missing_camera=0.15,
    caption_noise=0.15,
    infrared_colours=0.75,
)


def blend_knobs(first: DrawnKnobs, second: DrawnKnobs, share: float) -> DrawnKnobs:
    """Knobs that lie `share` of the way from the first to the second.

    >>> blend_knobs(EASY, DEFAULT, 0.0) == EASY
    True
    """
    start, end = first.model_dump(), second.model_dump()
    mixed = {name: (1.0 - share) * start[name] + share * end[name] for name in start}
    return DrawnKnobs(**(mixed | {"wardrobe": round(mixed["wardrobe"])}))


MODERATE = blend_knobs(EASY, DEFAULT, 0.5)
"""The demonstration's: the hardest that its CLIP leaves clearly enough to learn from; see `benchmarks/demo_gate.py`."""
PRESETS: Final[dict[str, DrawnKnobs]] = {"easy": EASY, "moderate": MODERATE, "default": DEFAULT, "hard": HARD}


def knobs_for(difficulty: str) -> DrawnKnobs:
    """The knobs of a named difficulty.

    Raises:
        ConfigError: No difficulty has this name.

    >>> knobs_for("easy").colour_leak
    0.7
    """
    try:
        return PRESETS[difficulty]
    except KeyError:
        raise ConfigError(f"no difficulty {difficulty!r}", hint=f"one of {', '.join(PRESETS)}") from None
