"""Prompts and options of captioning."""

from dataclasses import dataclass
from typing import Final, Literal

from models.modality import Modality, PerModality
from pipeline.errors import ConfigError
from pipeline.runtime.shards import Shard

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
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: Final[tuple[Precision, ...]] = ("auto", "float32", "bfloat16")


def choose_prompts(
    family: Family, variant: Variant | None, prompt: str | None, infrared_prompt: str | None
) -> PerModality[str]:
    """The prompts of a captioner for the images of each modality; `plain` without a `variant`.

    `prompt` replaces the prepared instruction for both modalities, `infrared_prompt` either for infrared images.
    `greyscale` variants add that infrared images have no colours. BLIP takes no instruction: its prompt is the
    beginning of the caption, by default empty, and a variant raises `ConfigError`.

    >>> choose_prompts("chat", None, None, "Describe the thermal picture.").infrared
    'Describe the thermal picture.'
    """
    if family == "blip":
        if variant is not None:
            raise ConfigError(
                "--prompt-variant is an instruction, and BLIP takes none",
                hint="omit it, or begin its captions with --prompt, such as --prompt 'a photo of a person'",
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


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """Options of captioning; see `load_model` for the model and `choose_prompts` for the prompts.

    `batch_size` counts images, `max_new_tokens` the model's own tokens; `start_over` renames an existing file;
    `shard=None` is all images.
    """

    model: str
    variant: Variant | None = None
    prompt: str | None = None
    infrared_prompt: str | None = None
    batch_size: int = 8
    max_new_tokens: int = 60
    device: str = "auto"
    precision: Precision = "auto"
    shard: Shard | None = None
    start_over: bool = False
    local_files_only: bool = False
