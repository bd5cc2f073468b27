"""Captioners: models of the transformers library from a hub or a folder, and a stub.

Weights are read from safetensors only, and no code of a model is run. transformers and its models are imported when a
model is loaded; no other module imports them.
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Protocol

from PIL import Image, ImageStat

from models.modality import PerModality
from models.torchvision_operators import define_missing_operators
from pipeline.captioning.settings import Family, Precision
from pipeline.errors import ConfigError, WeightsError

STUB: Final = "stub"  # model name of `StubCaptioner`
PATH_ENTRY: Final = "vireid path"  # entry of `image.info`: path relative to the data root
_INSTALL: Final = "install it: pip install -e '.[cpu,caption]' ('.[gpu,caption]' on a machine with a GPU)"
_FOLDER: Final = "use the folder of a model (see docs/captions.md), or connect to its hub"
_DESCRIBED: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_LIBRARIES: Final = ("usl-vireid", "transformers", "tokenizers", "torch", "torchvision", "pillow")


class Captioner(Protocol):
    """Describes images, deterministically. A description may be empty: the image then has no caption."""

    def describe(self, images: list[Image.Image]) -> list[str]:
        """One text an image, in the order of the images.

        Raises:
            MemoryError: The batch does not fit in the device's memory; a smaller one may.
        """
        ...


class StubCaptioner:
    """Returns instruction, path and mean colour of an image: for trying the pipeline, not for training."""

    def __init__(self, instruction: str) -> None:
        self._instruction = instruction

    def describe(self, images: list[Image.Image]) -> list[str]:
        """See `Captioner`."""
        return [self._answer(image) for image in images]

    def _answer(self, image: Image.Image) -> str:
        red, green, blue = (round(value) for value in ImageStat.Stat(image).mean[:3])
        return f"{self._instruction} {image.info.get(PATH_ENTRY, 'an image')}, mean colour {red} {green} {blue}".strip()


class ChatCaptioner:
    """A model that follows an instruction about an image: LLaVA, Qwen-VL, SmolVLM and similar ones.

    Decoding is greedy and deterministic. In 16 bits a word of the answer can depend on the rest of the batch. The
    processor has a chat template; it is set to pad at the left, because the answer continues the prompt.
    `max_new_tokens` limits the answer.

    Source: the instruction and greedy answers follow RSBA (IJCAI 2025) as far as it is described.
    """

    def __init__(self, processor: Any, model: Any, *, instruction: str, max_new_tokens: int) -> None:
        processor.tokenizer.padding_side = "left"
        self._processor, self._model = processor, model
        self._instruction, self._max_new_tokens = instruction, max_new_tokens

    def describe(self, images: list[Image.Image]) -> list[str]:
        """See `Captioner`. A prompt is not truncated: an image alone may be hundreds of tokens."""
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": image}, {"type": "text", "text": self._instruction}],
                }
            ]
            for image in images
        ]
        inputs = self._processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        answers = _generate(self._model, inputs, self._max_new_tokens)
        return _texts(self._processor, answers[:, inputs["input_ids"].shape[1] :])


class BlipCaptioner:
    """BLIP, which takes no instruction; a `prefix`, which may be empty, begins every caption."""

    def __init__(self, processor: Any, model: Any, *, prefix: str, max_new_tokens: int) -> None:
        self._processor, self._model = processor, model
        self._prefix, self._max_new_tokens = prefix, max_new_tokens

    def describe(self, images: list[Image.Image]) -> list[str]:
        """See `Captioner`."""
        texts = {"text": [self._prefix] * len(images)} if self._prefix else {}
        inputs = self._processor(images=images, return_tensors="pt", **texts)
        return _texts(self._processor, _generate(self._model, inputs, self._max_new_tokens))


def _generate(model: Any, inputs: Any, max_new_tokens: int) -> Any:
    import torch

    try:
        with torch.inference_mode():
            return model.generate(
                **inputs.to(model.device, model.dtype), max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
            )
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def _texts(processor: Any, tokens: Any) -> list[str]:
    return [" ".join(text.split()) for text in processor.batch_decode(tokens, skip_special_tokens=True)]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A captioning model: its entries in a caption file's metadata, and `captioner(prompt, max_new_tokens)`.

    `revision` is the commit on a hub, or `sha256:` and sixteen digits over the files of a folder.
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
    """Load a model of a hub or a folder, or the `stub`; `precision="auto"` is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ConfigError: transformers or a package that the model needs is not installed, there is no such device, or the
            model does not fit into its memory.
        WeightsError: The model is missing, incomplete, or of an unsupported kind.

    Cost: one read of a folder's files to compute the digest, and one to load them: 14 GB for LLaVA 1.5 of 7 B in 16
    bits.
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
    """Versions of the libraries that a caption can depend on."""
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
            hint="download the model again",
        )
    try:
        return network.to(place).eval(), str(dtype).removeprefix("torch.")
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"{model} does not fit into the memory of {place}", hint="use a smaller one") from error


def _read(model: str, read: Callable[[], Any]) -> Any:
    """Read a part of a model, and convert the many kinds of errors of transformers."""
    from safetensors import SafetensorError

    try:
        return read()
    except ImportError as error:  # SmolVLM, for one, needs a video package that transformers does not install
        raise ConfigError(
            f"{model} needs a package that is not installed: {_one_line(error)}", hint="install this package"
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
            f"{model} has no chat template, and is no BLIP: its prompt format is unknown",
            hint="use its instruction-tuned variant, or add chat_template.jinja to its folder",
        )


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _DESCRIBED for path in folder.glob(pattern)):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
