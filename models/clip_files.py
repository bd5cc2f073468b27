"""Reading the file formats of CLIP weights, and loading them into an architecture."""

import hashlib
import json
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

CONFIG_FILE = "open_clip_config.json"
FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # numbers among the weights of OpenAI's archives
_TEXT_PARTS = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")


class WeightsLoadError(ValueError):
    """CLIP weights cannot be loaded: missing, unreadable, of another architecture, or not reachable offline."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["WeightsLoadError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """Tensors by name, and whether the file is a TorchScript archive, OpenAI's own form."""

    state: dict[str, Tensor]
    is_archive: bool


def read_weights(path: Path) -> WeightsFile:
    """Read a safetensors file, a TorchScript archive or a plain state dict, whichever it is.

    No stored object is ever executed: TorchScript is read by its own loader, everything else with `weights_only`.

    Returns:
        The tensors on the CPU, as float32 if they are floating point, without a `module.` prefix.

    Raises:
        WeightsLoadError: The file is damaged, or holds anything but tensors.
    """
    is_archive = _is_torchscript(path)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        elif is_archive:
            content = _archive_state(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsLoadError(
            f"{path} cannot be read as weights: {reason}",
            hint="use safetensors, OpenAI's archive or a state dict of tensors; download a truncated file again",
        ) from error
    return WeightsFile(_tidy(content, path), is_archive)


def read_folder(folder: Path) -> tuple[dict[str, Any], WeightsFile]:
    """Read the architecture (`model_cfg`) and the weights of a model folder in open_clip's form.

    Raises:
        WeightsLoadError: `open_clip_config.json` or the weights file is missing or damaged.
    """
    config_file = folder / CONFIG_FILE
    if not config_file.is_file():
        raise WeightsLoadError(
            f"{folder} has no {CONFIG_FILE}", hint="use a folder in open_clip's form, or a weights file"
        )
    try:
        architecture = json.loads(config_file.read_text(encoding="utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsLoadError(
            f"{config_file} does not describe a model: {error!r}",
            hint="it needs an object `model_cfg`, as open_clip writes it",
        ) from error
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
    state = _in_layout_of(expected, state)
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
    model.load_state_dict(state)


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


def _archive_state(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():  # TorchScript is deprecated; archives from 2021 have no other reader
        warnings.simplefilter("ignore", DeprecationWarning)
        archive = torch.jit.load(str(path), map_location="cpu")
    state: dict[str, Tensor] = archive.state_dict()
    return state


def _is_torchscript(path: Path) -> bool:
    """Both formats of torch are zip files; only TorchScript has a separate file of constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def _tidy(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # a checkpoint of open_clip's training script
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsLoadError(f"{path} does not contain named tensors only", hint="save the model's state dict alone")
    state = {name: tensor for name, tensor in content.items() if name not in _NOT_WEIGHTS}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _in_layout_of(expected: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert other layouts of the same weights: text tower at the top level, a scalar as a vector."""
    if "text.positional_embedding" in expected and "positional_embedding" in state:
        state = {f"text.{name}" if name.startswith(_TEXT_PARTS) else name: tensor for name, tensor in state.items()}
    state = {
        name: tensor.reshape(expected[name].shape)
        if name in ("logit_scale", "logit_bias") and name in expected
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
