"""Reading the file formats of CLIP weights, and loading them into an architecture."""

import hashlib
import io
import json
import re
import struct
import warnings
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.file_kinds import (
    ARCHIVE_ERRORS,
    PICKLE,
    SAFETENSORS,
    STATE_DICT,
    TORCHSCRIPT,
    excess,
    header_excess,
    what_is,
)

CONFIG_FILE = "open_clip_config.json"
FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # numbers among the weights of OpenAI's archives
_TEXT_PARTS = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
_NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights of a checkpoint
_PREFIXES = ("module.", "model.", "_orig_mod.")
_LARGEST_CONFIG = 2**20
_FORMS = "use safetensors, OpenAI's archive or a state dict of tensors"
READ_ERRORS = (
    *ARCHIVE_ERRORS,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    UnpicklingError,
    SafetensorError,
)
"""What readers of torch and safetensors raise for damaged files."""


class WeightsLoadError(ValueError):
    """CLIP weights cannot be loaded: missing, unreadable, of another architecture, or not reachable offline."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["WeightsLoadError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)


def read_weights(path: Path, published: str = "") -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a plain state dict, by content and not by ending.

    No code of a file is run. A TorchScript archive runs code when it is loaded, so only that with the SHA-256
    `published` is; safetensors and state dicts (`weights_only`) hold tensors.

    Returns:
        The tensors on the CPU, without a prefix such as `module.`.

    Raises:
        WeightsLoadError: The file is something else, is damaged, or holds anything but tensors.
    """
    kind = what_is(path)
    if kind.is_missing:
        raise WeightsLoadError(f"there is no file {path}", hint=_FORMS)
    if kind.name not in (SAFETENSORS, TORCHSCRIPT, STATE_DICT, PICKLE):
        raise WeightsLoadError(f"{path} cannot be read as weights: it is {kind}", hint=kind.hint or _FORMS)
    try:
        too_large = {SAFETENSORS: header_excess, STATE_DICT: excess}.get(kind.name, lambda _: None)(path)
        if too_large is not None:
            raise _unreadable(path, too_large)
        content = _contents(path, kind.name, published)
    except READ_ERRORS as error:
        if isinstance(error, WeightsLoadError):
            raise
        raise _unreadable(path, load_reason(error)) from error
    return _tidy(content, path)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, OpenAI's own form, which runs code when it is loaded."""
    return what_is(path).name == TORCHSCRIPT


def read_architecture(folder: Path) -> dict[str, Any]:
    """Read `model_cfg` of a model folder in open_clip's form.

    Raises:
        WeightsLoadError: `open_clip_config.json` is missing or does not describe a model.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise WeightsLoadError(
            f"{folder} has no {CONFIG_FILE}", hint="use a folder in open_clip's form, or a weights file"
        )
    try:
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has {file.stat().st_size:,} bytes")
        architecture: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["model_cfg"]
        if not all(isinstance(architecture[part], dict) for part in ("vision_cfg", "text_cfg")):
            raise TypeError("vision_cfg and text_cfg are not objects")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsLoadError(
            f"{file} does not describe a model: {_json_reason(error)}",
            hint="it needs an object `model_cfg` with `vision_cfg` and `text_cfg`, as open_clip writes it",
        ) from error
    return architecture


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the architecture (`model_cfg`) and the weights of a model folder in open_clip's form.

    Raises:
        WeightsLoadError: `open_clip_config.json` or the weights file is missing or damaged.
    """
    architecture = read_architecture(folder)
    for name in FOLDER_WEIGHTS:
        if (folder / name).is_file():
            return architecture, read_weights(folder / name)
    raise WeightsLoadError(f"{folder} has no weights", hint=f"expected one of {', '.join(FOLDER_WEIGHTS)}")


def fit_weights(model: nn.Module, state: dict[str, Tensor], *, source: str, architecture: str) -> None:
    """Load `state` into an open_clip model, every tensor or none; `source` and `architecture` name both in errors.

    Raises:
        WeightsLoadError: The first name or shape in which the two differ.
    """
    expected = model.state_dict()
    state = in_layout_of(expected, state)
    check_fit(expected, state, source=source, architecture=architecture)
    model.load_state_dict(state)


def check_fit(expected: dict[str, Tensor], state: dict[str, Tensor], *, source: str, architecture: str) -> None:
    """Compare names and shapes; `expected` may be on the device `meta`. Raises as `fit_weights`."""
    for name, tensor in expected.items():
        if name not in state:
            raise _mismatch(source, architecture, f"{name} ({_shape(tensor)}) is missing in the file")
        if state[name].shape != tensor.shape:
            raise _mismatch(
                source, architecture, f"{name} is {_shape(state[name])} in the file, {_shape(tensor)} in the model"
            )
    for name in state:
        if name not in expected:
            raise _mismatch(source, architecture, f"{name} ({_shape(state[name])}) is unknown to the model")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state_digest(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that identify the weights of a model, independent of their file.

    Cost: 0.3 s for the 102 M weights of RN50 on one core.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _contents(path: Path, kind: str, published: str) -> Any:
    if kind == SAFETENSORS:
        return load_file(path)
    if kind != TORCHSCRIPT:
        with path.open("rb") as file:  # given the path, torch decides by its ending
            return torch.load(file, map_location="cpu", weights_only=True)
    found = file_digest(path)
    content = path.read_bytes() if found == published else b""
    if hashlib.sha256(content).hexdigest() != published:  # what is loaded is what was compared
        expected = f", published {published[:16]}..." if published else ""
        raise WeightsLoadError(
            f"{path} is a TorchScript archive, which runs code when it is loaded, and not OpenAI's published one: "
            f"SHA-256 {found[:16]}...{expected}",
            hint="download OpenAI's archive again, or save the state dict of these weights as safetensors",
        )
    with warnings.catch_warnings():  # TorchScript is deprecated; archives from 2021 have no other reader
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(content), map_location="cpu").state_dict()


def _unreadable(path: Path, reason: str) -> WeightsLoadError:
    return WeightsLoadError(
        f"{path} cannot be read as weights: {reason}", hint=f"{_FORMS}; download a truncated file again"
    )


def load_reason(error: BaseException) -> str:
    """Why torch or safetensors cannot load a file: one line, without advice to load objects."""
    text = str(error)
    refused = re.search(r"GLOBAL (\S+)", text)
    if refused:
        return f"it holds other objects than tensors ({refused[1]}), which could run code"
    first = text.strip().partition("\n")[0]
    return "it is damaged" if not first or "weights_only" in first or "Unsupported" in first else first


def _json_reason(error: Exception) -> str:
    if isinstance(error, RecursionError) or "int_max_str_digits" in str(error):
        return "it is nested too deeply, or has a number of thousands of digits"
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _tidy(content: Any, path: Path) -> dict[str, Tensor]:
    for name in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise WeightsLoadError(f"{path} does not contain named tensors only", hint="save the model's state dict alone")
    odd = [name for name, value in content.items() if not _is_plain(value)]
    if odd:
        raise WeightsLoadError(f"{path}: {odd[0]} is no tensor of plain numbers", hint="save dense tensors of numbers")
    state = {name: tensor for name, tensor in content.items() if name not in _NOT_WEIGHTS}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return dense and not (tensor.is_complex() or tensor.is_quantized)


def in_layout_of(expected: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert other layouts of the same weights: text tower at the top level, a scalar as a vector."""
    if "text.positional_embedding" in expected and "positional_embedding" in state:
        state = {f"text.{name}" if name.startswith(_TEXT_PARTS) else name: tensor for name, tensor in state.items()}
    state = {
        name: tensor.reshape(expected[name].shape)
        if name in ("logit_scale", "logit_bias") and name in expected and tensor.numel() == expected[name].numel()
        else tensor
        for name, tensor in state.items()
    }
    counters = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    return {**{name: torch.zeros_like(tensor) for name, tensor in counters.items()}, **state}


def _mismatch(source: str, architecture: str, difference: str) -> WeightsLoadError:
    return WeightsLoadError(
        f"{source} does not fit {architecture}: {difference}",
        hint="set model.architecture to the architecture that the weights were trained with",
    )


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(length) for length in tensor.shape) or "a single number"
