"""A trained encoder as two files that hold no code: its weights as safetensors, and what its network is built from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from models.clip import untrained_image_tower
from models.clip_files import WeightsLoadError, check_fit, read_weights
from models.encoder import DualStemEncoder
from models.imagenet import RESNET50, load_imagenet
from models.person_heads import LearnedGeneralisedMean, prepare_for_people

FORMAT = 1
WEIGHTS = "encoder.safetensors"
DESCRIPTION = "encoder.json"
_LARGEST = 2**20
_HINT = "write the encoder again with this version"


def save_encoder(
    folder: Path, encoder: DualStemEncoder, architecture: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Write an encoder into a folder, and read it back.

    Args:
        folder: An existing one.
        encoder: On the CPU.
        architecture: Of its CLIP, as in `LoadedClip`; empty for torchvision's ResNet-50.
        settings: Plain JSON values, returned by `load_encoder`.

    Raises:
        WeightsLoadError: The network is not one that `load_encoder` builds.
        OSError: The folder cannot be written.
    """
    description = {
        "format": FORMAT,
        "architecture": dict(architecture) or None,
        "image_size": list(encoder.image_size),
        "people": isinstance(encoder.pool, LearnedGeneralisedMean),
        "stem_activation": "last" if _has_identity(encoder) else "clip",
        "settings": settings,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, folder / WEIGHTS)
    load_encoder(folder)


def load_encoder(folder: Path) -> tuple[DualStemEncoder, dict[str, Any]]:
    """Read an encoder, in evaluation mode on the CPU, and the settings that were written with it; runs no code.

    Raises:
        WeightsLoadError: A file is missing or damaged, or the two do not fit.
    """
    description = _read_description(folder / DESCRIPTION)
    weights = folder / WEIGHTS
    state = read_weights(weights)
    with torch.device("meta"):  # a wrong size is found before memory is allocated for it
        expected = _network(description, len(state)).state_dict()
    check_fit(expected, state, source=str(weights), architecture=DESCRIPTION)
    encoder = _network(description, len(state))
    encoder.load_state_dict(state)
    return encoder.eval(), description["settings"]


def _read_description(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"it has {file.stat().st_size:,} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise WeightsLoadError(f"{file} cannot be read: {reason}", hint=_HINT) from error
    kinds = {"image_size": list, "people": bool, "stem_activation": str, "settings": dict}
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise WeightsLoadError(f"{file} does not describe an encoder of format {FORMAT}", hint=_HINT)
    wrong = [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]
    if wrong or not isinstance(found.get("architecture"), (dict, type(None))):
        raise WeightsLoadError(f"{file} is damaged: {', '.join(wrong) or 'architecture'}", hint=_HINT)
    sizes = found["image_size"]
    if len(sizes) != 2 or not all(isinstance(length, int) and 0 < length <= 2**14 for length in sizes):
        raise WeightsLoadError(f"{file} is damaged: image_size", hint=_HINT)
    return found


def _network(description: Mapping[str, Any], num_tensors: int) -> DualStemEncoder:
    architecture = description["architecture"]
    clip = load_imagenet("random") if architecture is None else untrained_image_tower(architecture, num_tensors)
    height, width = description["image_size"]
    try:
        encoder = DualStemEncoder.from_clip(clip, image_height=height, image_width=width)
        if description["people"]:
            prepare_for_people(encoder, stem_activation="last" if description["stem_activation"] == "last" else "clip")
    except (ValueError, RuntimeError) as error:
        raise WeightsLoadError(f"the network of {RESNET50 if architecture is None else 'the architecture'} cannot be "
                               f"built: {error}", hint=_HINT) from error  # fmt: skip
    return encoder


def _has_identity(encoder: DualStemEncoder) -> bool:
    return any(isinstance(getattr(stem, "act1", None), nn.Identity) for stem in encoder.stems.children())
