"""The difficulty of a synthetic data set: knobs, and presets of them."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import ConfigError


class SyntheticKnobs(BaseModel):
    """Difficulty settings. Within the bounds images stay legible."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    colour_leak: float = Field(0.15, ge=0.0, le=1.0)
    """Share of a garment's visible brightness that remains in infrared; 0 is the real world's worst case."""
    reflectance_noise: float = Field(0.18, ge=0.0, le=0.5)
    """Standard deviation of a garment's infrared reflectance around the mean of its material."""
    material_spread: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on the distance of each material's reflectance from one half."""
    pattern_survival: float = Field(0.5, ge=0.0, le=1.0)
    """Probability that the two colours of a texture also differ in infrared."""
    wardrobe: int = Field(60, ge=14)
    """Number of distinct garments shared by all people; fewer make people more similar."""
    pose_spread: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on stride, arm swing and lean."""
    view_spread: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on the spread of facing angles around a camera's mean."""
    camera_shift: float = Field(1.0, ge=0.0, le=1.5)
    """Factor on the differences in light, colour temperature, tone and elevation between cameras."""
    background: float = Field(1.0, ge=0.0, le=1.5)
    """Contrast and saturation of the static backgrounds."""
    blur: float = Field(1.0, ge=0.0, le=2.0)
    """Factor on defocus and motion blur."""
    noise: float = Field(1.0, ge=0.0, le=2.0)
    """Factor on shot and read noise."""
    occlusion: float = Field(0.15, ge=0.0, le=1.0)
    """Probability that a pole, a plant or another body covers part of a person."""
    crop_jitter: float = Field(0.06, ge=0.0, le=0.2)
    """Standard deviation of the detector's box, as a share of its size; truncation at head and feet follows from it."""
    missing_camera: float = Field(0.1, ge=0.0, le=0.5)
    """Probability that a camera has no images of a person; two visible and one infrared camera always have."""
    caption_noise: float = Field(0.1, ge=0.0, le=1.0)
    """Probability that a caption omits an attribute; a third of it is the probability of a wrong one."""
    infrared_colours: float = Field(0.5, ge=0.0, le=1.0)
    """Probability that the caption of an infrared image names a garment's colour, which the image does not show."""


EASY = SyntheticKnobs(
    colour_leak=0.7, reflectance_noise=0.06, material_spread=0.35, pattern_survival=1.0, wardrobe=120, pose_spread=0.7,
    view_spread=0.7, camera_shift=0.4, background=0.35, blur=0.4, noise=0.4, occlusion=0.05, crop_jitter=0.03,
    missing_camera=0.1, caption_noise=0.05, infrared_colours=0.25,
)  # fmt: skip
DEFAULT = SyntheticKnobs()
HARD = SyntheticKnobs(
    colour_leak=0.0, reflectance_noise=0.24, material_spread=1.2, pattern_survival=0.3, wardrobe=40, pose_spread=1.2,
    view_spread=1.2, camera_shift=1.3, background=1.3, blur=1.4, noise=1.5, occlusion=0.25, crop_jitter=0.08,
    missing_camera=0.15, caption_noise=0.15, infrared_colours=0.75,
)  # fmt: skip


def blend_knobs(first: SyntheticKnobs, second: SyntheticKnobs, share: float) -> SyntheticKnobs:
    """Interpolate between two sets of knobs: `share` 0 is the first, 1 the second.

    >>> blend_knobs(EASY, DEFAULT, 0.0) == EASY
    True
    """
    start, end = first.model_dump(), second.model_dump()
    mixed = {name: (1.0 - share) * start[name] + share * end[name] for name in start}
    return SyntheticKnobs(**(mixed | {"wardrobe": round(mixed["wardrobe"])}))


MODERATE = blend_knobs(EASY, DEFAULT, 0.5)
"""Used by the demonstration: the hardest at which the demo CLIP still learns clearly; see `benchmarks/demo_gate.py`."""
PRESETS: Final[dict[str, SyntheticKnobs]] = {"easy": EASY, "moderate": MODERATE, "default": DEFAULT, "hard": HARD}


def knobs_for(difficulty: str) -> SyntheticKnobs:
    """The knobs of a named difficulty.

    Raises:
        ConfigError: The name is unknown.
    """
    try:
        return PRESETS[difficulty]
    except KeyError:
        raise ConfigError(f"no difficulty {difficulty!r}", hint=f"one of {', '.join(PRESETS)}") from None
