"""Vision-language models by the name of a model hub, or from a folder: the only place that imports transformers.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from models.modality import PerModality
from models.torchvision_operators import define_missing_operators
from pipeline.captioning.adapters import BlipCaptioner, ChatCaptioner
from pipeline.captioning.captioner import STUB, Captioner, StubCaptioner
from pipeline.captioning.prompts import Family
from pipeline.captioning.settings import Precision
from pipeline.errors import ConfigError, WeightsError

_INSTALL: Final = "install it: pip install -e '.[cpu,caption]' ('.[gpu,caption]' on a machine with a GPU)"
_FOLDER: Final = "name a folder that holds the model (see docs/captions.md), or connect to its hub"
_DESCRIBED: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_LIBRARIES: Final = ("usl-vireid", "transformers", "tokenizers", "torch", "torchvision", "pillow")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that can describe images, and what a caption file says about it.

    Attributes:
        model_id: The name on a hub, or that of the folder, without the way to it.
        revision: The commit on a hub; `sha256:` and sixteen digits over the files of a folder.
        family: How it is asked.
        dtype: The numbers that it computes in.
        captioner: A captioner for a prompt and the longest answer, in tokens.
    """

    model_id: str
    revision: str
    family: Family
    dtype: str
    captioner: Callable[[str, int], Captioner]

    def captioners(self, prompts: PerModality[str], max_new_tokens: int) -> PerModality[Captioner]:
        """One captioner a modality, of one model."""
        return prompts.map(lambda prompt: self.captioner(prompt, max_new_tokens))


def load_model(model: str, *, device: str, precision: Precision, local_files_only: bool) -> LoadedModel:
    """Load a model by its name or folder.

    Args:
        model: The name of a model on a hub, a folder, or `stub`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto` is bfloat16 on a GPU and float32 on a CPU.
        local_files_only: Take a model of a hub from what was downloaded before.

    Raises:
        ConfigError: transformers or a package that the model needs is not installed, there is no such device, or the
            model does not fit into its memory.
        WeightsError: The model is not there, not complete, or of a kind that cannot be asked.

    Cost: one read of a folder's files to name them, and one to load them: 14 GB for LLaVA 1.5 of 7 B in 16 bits.
    """
    if model == STUB:
        return LoadedModel(STUB, "1", "stub", "none", lambda prompt, _: StubCaptioner(prompt))
    transformers = _transformers()
    folder = _folder(model)
    options = {"local_files_only": local_files_only or folder is not None, "trust_remote_code": False}
    source = model if folder is None else str(folder)
    config = _read(model, lambda: transformers.AutoConfig.from_pretrained(source, **options))
    family: Family = "blip" if config.model_type == "blip" else "chat"
    processor = _read(model, lambda: transformers.AutoProcessor.from_pretrained(source, **options))
    if family == "chat":
        _require_chat(model, processor)
    network, dtype = _network(transformers, model, source, options, device, precision)

    def captioner(prompt: str, max_new_tokens: int) -> Captioner:
        if family == "blip":
            return BlipCaptioner(processor, network, prefix=prompt, max_new_tokens=max_new_tokens)
        return ChatCaptioner(processor, network, instruction=prompt, max_new_tokens=max_new_tokens)

    revision = getattr(config, "_commit_hash", None) or "unknown" if folder is None else _folder_digest(folder)
    return LoadedModel(model if folder is None else folder.resolve().name, revision, family, dtype, captioner)


def library_versions() -> dict[str, str]:
    """The versions that a caption can depend on."""
    versions: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _transformers() -> Any:
    define_missing_operators()
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"transformers, which runs captioners, cannot be imported: {error}", hint=_INSTALL) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise WeightsError(f"there is no folder {model}", hint=_FOLDER)
    return None


def _network(
    transformers: Any, model: str, source: str, options: dict[str, Any], device: str, precision: Precision
) -> tuple[Any, str]:
    import torch

    from pipeline.runtime.device import resolve_device

    place = resolve_device(device)
    if place.type == "cpu" and precision == "bfloat16":
        raise ConfigError("--precision bfloat16 is for GPUs", hint="use auto or float32")
    dtype = torch.bfloat16 if place.type == "cuda" and precision != "float32" else torch.float32
    network, found = _read(
        model,
        lambda: transformers.AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        ),
    )
    if found["missing_keys"]:
        raise WeightsError(
            f"{model} lacks {len(found['missing_keys'])} of its weights, first {min(found['missing_keys'])}",
            hint="fetch the model again",
        )
    try:
        return network.to(place).eval(), str(dtype).removeprefix("torch.")
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"{model} does not fit into the memory of {place}", hint="take a smaller one") from error


def _read(model: str, read: Callable[[], Any]) -> Any:
    """Read a part of a model; what is wrong with it is said by transformers, in many kinds of error."""
    from safetensors import SafetensorError

    try:
        return read()
    except ImportError as error:  # SmolVLM, for one, wants a package for video that transformers does not bring
        raise ConfigError(
            f"{model} needs a package that is not here: {_one_line(error)}", hint="install the package that is named"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{model} cannot be loaded: {_one_line(error)}", hint=_FOLDER) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _require_chat(model: str, processor: Any) -> None:
    if getattr(processor, "image_processor", None) is None:
        raise WeightsError(f"{model} does not read images", hint="choose a model that describes images, such as LLaVA")
    if not getattr(processor, "chat_template", None):
        raise WeightsError(
            f"{model} has no chat template, and is no BLIP: how to ask it is not known",
            hint="take its variant that was trained on instructions, or add chat_template.jinja to its folder",
        )


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _DESCRIBED for path in folder.glob(pattern)):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
