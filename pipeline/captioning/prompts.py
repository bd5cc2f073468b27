"""What captioners are asked."""

from typing import Final, Literal

from models.modality import Modality, PerModality
from pipeline.errors import ConfigError

Family = Literal["chat", "blip", "stub"]
Variant = Literal["plain", "restrained", "greyscale", "restrained-greyscale"]
VARIANTS: Final[tuple[Variant, ...]] = ("plain", "restrained", "greyscale", "restrained-greyscale")

# RSBA (IJCAI 2025), the successor of EEES by the same authors; EEES's own wording is not known.
PLAIN: Final = "Please describe the characteristics of the pedestrian in the image."
# Ours, not tuned.
RESTRAINED: Final = (
    "Describe the clothes, shoes, hair, gender and belongings of the pedestrian in the image in one or two sentences. "
    "Do not guess what cannot be seen."
)
GREYSCALE: Final = "The picture is greyscale: do not name any colours."


def choose_prompts(
    family: Family, variant: Variant | None, prompt: str | None, infrared_prompt: str | None
) -> PerModality[str]:
    """What is asked of a captioner about the images of each modality.

    Args:
        family: What kind of captioner it is. BLIP is asked nothing: a prompt is the beginning of its answer, and it has
            none unless one is given.
        variant: A prepared instruction; `plain` when None. `greyscale` tells that infrared pictures have no colours.
        prompt: In place of the prepared one, for both modalities.
        infrared_prompt: In place of either, for infrared images.

    Raises:
        ConfigError: A prepared instruction for BLIP.

    >>> choose_prompts("chat", None, None, "Describe the thermal picture.").infrared
    'Describe the thermal picture.'
    """
    if family == "blip":
        if variant is not None:
            raise ConfigError(
                "--prompt-variant is an instruction, and BLIP takes none",
                hint="leave it out, or begin its captions with --prompt, such as --prompt 'a photo of a person'",
            )
        prepared = PerModality("", "")
    else:
        prepared = PerModality.build(lambda modality: _prepared(variant or "plain", modality))
    both = prepared if prompt is None else PerModality(prompt, prompt)
    return both if infrared_prompt is None else PerModality(both.visible, infrared_prompt)


def _prepared(variant: Variant, modality: Modality) -> str:
    instruction = RESTRAINED if variant.startswith("restrained") else PLAIN
    tells = variant.endswith("greyscale") and modality is Modality.INFRARED
    return f"{instruction} {GREYSCALE}" if tells else instruction
