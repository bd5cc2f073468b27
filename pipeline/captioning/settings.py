"""How images are described: the choices of whoever asks."""

from dataclasses import dataclass
from typing import Final, Literal

from pipeline.captioning.prompts import Variant
from pipeline.captioning.shards import Shard

Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: Final[tuple[Precision, ...]] = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """How images are described.

    Attributes:
        model: The name of a model on a hub, a folder, or `stub`.
        variant: A prepared instruction; see `choose_prompts`, like the two that follow.
        prompt: An instruction in its place.
        infrared_prompt: An instruction for infrared images.
        batch_size: Images at once.
        max_new_tokens: The longest answer, in the model's own tokens.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` is bfloat16 on a GPU.
        shard: Which part of the images; None for all.
        start_over: Put a file that is there aside and begin again.
        local_files_only: Take a model of a hub from what was downloaded before.
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
