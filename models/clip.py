"""CLIP models, built by open_clip: downloaded weights, a file, a folder, the shipped demo CLIP, or random weights.

open_clip takes seconds to import, so it is imported when the first model is built.
"""

import copy
import difflib
import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from models.clip_files import (
    WeightsLoadError,
    check_fit,
    fit_weights,
    in_layout_of,
    is_torchscript,
    read_folder,
    read_weights,
    state_digest,
)
from models.file_kinds import FOLDER, what_is
from models.torchvision_operators import define_missing_operators

__all__ = [
    "LoadedClip",
    "WeightsLoadError",
    "WeightsOrigin",
    "count_tokens",
    "demo_clip_folder",
    "load_clip",
    "open_clip_module",
    "untrained_image_tower",
]

TINY = "tiny"
_BUILD_ERRORS = (
    TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError,
    MemoryError,
)  # fmt: skip
_TINY_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """Where weights come from, for every report that used them; reports must name `demo` weights as such.

    `kind` is `openai` or another open_clip tag, `demo`, `random`, or `file`; `model` names the architecture or its
    folder; `digest` is sixteen hexadecimal digits of the SHA-256 over the loaded weights.
    """

    kind: str
    model: str
    digest: str


@dataclass(frozen=True, slots=True)
class LoadedClip:
    """A CLIP model of open_clip in float32 and evaluation mode on the CPU, its origin, and its tokenizer.

    `architecture` is open_clip's `model_cfg`; empty for a network of another library.
    """

    model: nn.Module
    origin: WeightsOrigin
    tokenizer: Callable[[list[str]], Tensor]
    architecture: Mapping[str, Any] = field(default_factory=dict)


def load_clip(architecture: str, weights: str, *, seed: int = 1) -> LoadedClip:
    """Build a CLIP model with weights by name or path.

    OpenAI's weights need an architecture whose name ends in `-quickgelu`; with the plain one every output drifts a
    little, so that pair is refused. The global random state is unchanged; `seed` is that of `random` weights.

    * `architecture`: Of open_clip, or `tiny`, the small one for tests. A folder has its own and ignores it.
    * `weights`: `demo` (the shipped demo CLIP), `random`, an open_clip tag such as `openai`, or the path of a file
      (OpenAI's TorchScript archive, safetensors, plain state dict) or of a folder in open_clip's form. No code of a
      file is run: a TorchScript archive has to have OpenAI's published digest.

    Raises:
        WeightsLoadError: Unknown name, missing or damaged file, other architecture, or no network for a tag.

    Cost: RN50 takes 0.8 s on one core to build and name, and 408 MB, beside the import of open_clip.
    """
    if weights == "random":
        return _with_random_weights(architecture, seed)
    if weights == "demo":
        return _from_folder(demo_clip_folder())
    tags: list[str] = open_clip_module().list_pretrained_tags_by_model(architecture)
    if weights in tags:
        return _with_downloaded_weights(architecture, weights)
    path = Path(weights)
    found = what_is(path)
    if found.name == FOLDER:
        return _from_folder(path)
    if not found.is_missing:
        return _from_file(architecture, path)
    _architecture(architecture)  # an unknown architecture has no tags, and is the likelier mistake
    known = f" or to a tag of {architecture} ({', '.join(tags)})" if tags else ""
    raise WeightsLoadError(
        f"no weights at {path}, and no open_clip tag of this name for {architecture}",
        hint=f"set model.weights to an existing file or folder, to demo or random{known}",
    )


def demo_clip_folder() -> Path:
    """The folder of the demo CLIP that ships with the project, in open_clip's form."""
    return Path(__file__).parent / "demo_clip"


def count_tokens(texts: list[str]) -> Int64[np.ndarray, " texts"]:
    """Tokens of each text in CLIP's vocabulary, start and end included, before truncation.

    Cost: 0.1 ms a distinct text of 40 tokens on one CPU core.
    """
    open_clip_module()
    tokenizer: Any = _byte_pair_tokenizer(77)
    counts = {text: len(tokenizer.encode(text)) + 2 for text in dict.fromkeys(texts)}
    return np.array([counts[text] for text in texts], dtype=np.int64)


@functools.cache
def open_clip_module() -> ModuleType:
    """Import open_clip, after declaring torchvision's operators.

    Cost: 3 s the first time, with compiled bytecode.
    """
    define_missing_operators()
    return importlib.import_module("open_clip")


def _with_random_weights(name: str, seed: int) -> LoadedClip:
    architecture = _architecture(name)
    model = _build(architecture, seed)
    for parameter_name, parameter in model.named_parameters():
        # open_clip zeroes the last scale of every residual block: an untrained trunk would add nothing to its input.
        if parameter_name.startswith("visual.layer") and parameter_name.endswith("bn3.weight"):
            nn.init.ones_(parameter)
    return _loaded(model, architecture, "random", name)


def _with_downloaded_weights(name: str, tag: str) -> LoadedClip:
    download = importlib.import_module("open_clip.pretrained")
    entry = download.get_pretrained_cfg(name, tag)
    architecture = _architecture(name)
    if bool(entry.get("quick_gelu", False)) != bool(architecture.get("quick_gelu", False)):
        raise _wrong_gelu(f"{tag} weights", name, needs_quick=bool(entry.get("quick_gelu", False)))
    try:
        path = Path(download.download_pretrained(entry))
    except (OSError, RuntimeError) as error:
        address: str = entry.get("url", "")
        digest = _published_digest(name, tag)
        file = f"{address.rpartition('/')[2]}, SHA-256 {digest[:16]}..." if digest else f"the {tag} weights of {name}"
        raise WeightsLoadError(
            f"the {tag} weights of {name} cannot be downloaded: {str(error).strip().partition(chr(10))[0]}",
            hint=f"download {file} where there is a network, and set model.weights to the path of the file",
        ) from error
    state = read_weights(path, _published_digest(name, tag))
    return _fitted(state, architecture, tag, name, source=str(path))


def _from_file(name: str, path: Path) -> LoadedClip:
    architecture, published = _architecture(name), ""
    if is_torchscript(path):
        if not architecture.get("quick_gelu", False):
            raise _wrong_gelu(f"{path}, an archive in OpenAI's form,", name, needs_quick=True)
        published = _published_digest(name, "openai")
    state = read_weights(path, published)
    return _fitted(state, architecture, "openai" if published else "file", name, source=str(path))


def _from_folder(folder: Path) -> LoadedClip:
    architecture, state = read_folder(folder)
    kind = "demo" if folder.resolve() == demo_clip_folder().resolve() else "file"
    name = folder.resolve().name
    _check_layers(architecture, len(state), str(folder))
    with torch.device("meta"):  # a wrong size is found before memory is allocated for it
        expected = _build(architecture, seed=0).state_dict()
    check_fit(expected, in_layout_of(expected, state), source=str(folder), architecture=name)
    return _fitted(state, architecture, kind, name, source=str(folder))


def untrained_image_tower(architecture: Mapping[str, Any], num_tensors: int) -> LoadedClip:
    """Build the image tower of an architecture in open_clip's form, beside a small text tower.

    `num_tensors` that are to be loaded bound the number of layers. Inside `torch.device("meta")` nothing is allocated.

    Raises:
        WeightsLoadError: The architecture is damaged, or has more layers.
    """
    image = {name: architecture.get(name) for name in ("embed_dim", "quick_gelu", "vision_cfg")}
    if not isinstance(image["vision_cfg"], dict):
        raise WeightsLoadError("the architecture has no vision_cfg", hint="export the model again")
    _check_layers(image, num_tensors, "the model")
    settings = {**image, "text_cfg": copy.deepcopy(_TINY_ARCHITECTURE["text_cfg"])}
    model = _build(settings, seed=0)
    return LoadedClip(model, WeightsOrigin("file", "", ""), _byte_pair_tokenizer(77), settings)


def _check_layers(architecture: Mapping[str, Any], num_tensors: int, source: str) -> None:
    """A layer has at least one tensor, so a file of few tensors has no architecture of a million layers."""
    for part in architecture.values():
        layers = part.get("layers", 0) if isinstance(part, dict) else 0
        numbers = layers if isinstance(layers, (list, tuple)) else [layers]
        if not all(isinstance(number, int) for number in numbers) or sum(numbers) > num_tensors:
            raise WeightsLoadError(
                f"{source} describes {layers!s:.50} layers, and its weights have {num_tensors:,} tensors",
                hint="correct `model_cfg` in the folder's config",
            )


def _published_digest(name: str, tag: str) -> str:
    """The SHA-256 that is part of the address of OpenAI's archives; empty for other weights."""
    entry = importlib.import_module("open_clip.pretrained").get_pretrained_cfg(name, tag)
    parts: list[str] = entry.get("url", "").split("/")
    return parts[-2] if len(parts) > 1 and len(parts[-2]) == 64 else ""


def _wrong_gelu(weights: str, name: str, *, needs_quick: bool) -> WeightsLoadError:
    trained, other = (
        ("quick GELU", f"{name}-quickgelu") if needs_quick else ("plain GELU", name.removesuffix("-quickgelu"))
    )
    return WeightsLoadError(
        f"{weights} were trained with the {trained}, {name} computes another function",
        hint=f"set model.architecture to {other}",
    )


def _architecture(name: str) -> dict[str, Any]:
    if name == TINY:
        return copy.deepcopy(_TINY_ARCHITECTURE)
    architecture: dict[str, Any] | None = open_clip_module().get_model_config(name) if ":" not in name else None
    if architecture is None:
        similar = difflib.get_close_matches(name, open_clip_module().list_models(), n=3) or [
            "RN50-quickgelu",
            "ViT-B-16-quickgelu",
        ]
        raise WeightsLoadError(
            f"open_clip has no architecture {name}",
            hint=f"set model.architecture to an architecture such as {', '.join(similar)}",
        )
    return architecture


def _fitted(state: dict[str, Tensor], architecture: dict[str, Any], kind: str, name: str, *, source: str) -> LoadedClip:
    model = _build(architecture, seed=0)  # every weight is overwritten
    fit_weights(model, state, source=source, architecture=name)
    return _loaded(model, architecture, kind, name)


def _build(architecture: dict[str, Any], seed: int) -> nn.Module:
    settings = copy.deepcopy(architecture)
    if "timm_model_name" in settings.get("vision_cfg", {}) or "hf_model_name" in settings.get("text_cfg", {}):
        raise WeightsLoadError(
            "the architecture has a tower of another library",
            hint="set model.architecture to a model with open_clip's own towers, such as RN50-quickgelu or "
            "ViT-B-16-quickgelu",
        )
    custom_text = settings.pop("custom_text", False)
    open_clip = open_clip_module()
    make = (
        open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    )
    with torch.random.fork_rng(devices=()):  # open_clip draws from the global state, which this restores
        torch.default_generator.manual_seed(seed)
        try:
            model: nn.Module = make(**settings)
        except _BUILD_ERRORS as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise WeightsLoadError(
                f"open_clip cannot build the architecture: {reason}", hint="correct `model_cfg` in the folder's config"
            ) from error
    return model.float().eval()


def _loaded(model: nn.Module, architecture: dict[str, Any], kind: str, name: str) -> LoadedClip:
    origin = WeightsOrigin(kind, name, state_digest(model))
    return LoadedClip(model, origin, _tokenizer(architecture["text_cfg"]), architecture)


def _tokenizer(text: dict[str, Any]) -> Callable[[list[str]], Tensor]:
    """The byte-pair vocabulary that ships with open_clip; others would need a download."""
    other = text.get("hf_tokenizer_name")
    if other:

        def refuse(texts: list[str]) -> Tensor:
            raise ValueError(f"{len(texts)} texts for the tokenizer {other}; only CLIP's own vocabulary is supported")

        return refuse
    return _byte_pair_tokenizer(text.get("context_length", 77))


@functools.cache
def _byte_pair_tokenizer(context_length: int) -> Callable[[list[str]], Tensor]:
    make = importlib.import_module("open_clip.tokenizer").SimpleTokenizer
    tokenizer: Callable[[list[str]], Tensor] = make(context_length=context_length)
    return tokenizer
