"""A trained encoder as files for other programs: one network per modality, and the preprocessing it expects."""

import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32
from safetensors.torch import load, save
from torch import Tensor

from models.encoder import Descriptor, DualStemEncoder
from models.modality import Modality, PerModality
from pipeline.config.experiment import marks_of, record_of
from pipeline.data.transforms.augmentation import colour_statistics
from pipeline.errors import ConfigError, TrainingError
from pipeline.inference.encoder import RunEncoder
from pipeline.inference.run_encoder import empty_encoder
from pipeline.runtime import atomic_files
from pipeline.runtime.outputs import check_folder

Format = Literal["safetensors", "torchscript", "onnx"]
FORMATS: tuple[str, ...] = get_args(Format)
LARGEST_DIFFERENCE = 1e-4
DESCRIPTION = "model.json"
WEIGHTS = "encoder.safetensors"
OPSET = 18
_INSTALL = "install them: pip install -e '.[cpu,export]' ('.[gpu,export]' on a machine with a GPU)"
_TRIED = (1, 3)

Network = Callable[[Float32[np.ndarray, "n 3 h w"]], Float32[np.ndarray, "n dim"]]


@dataclass(frozen=True, slots=True)
class Exported:
    """The written files, and the largest difference between their vectors and the encoder's own."""

    folder: Path
    files: tuple[str, ...]
    difference: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"folder": str(self.folder), "files": list(self.files), "largest_difference": self.difference}


def export_encoder(encoder: RunEncoder, form: Format, folder: Path) -> Exported:
    """Export the encoder of a run, then load the files again and compare their vectors with the run's own.

    Args:
        encoder: On the CPU.
        form: `torchscript` and `onnx`: one file per modality, float32 [n, 3, height, width] to [n, dim] for any n.
            `safetensors`: the weights of both, and the settings of the network.
        folder: Made when absent; an earlier export in it is replaced. `model.json` describes the preprocessing.

    Raises:
        ConfigError: A library is not installed; the folder cannot be written, or holds other files.
        TrainingError: Vectors differ by more than 1e-4; nothing is written.

    Cost: seconds; `onnx` and `torchscript` store the shared trunk twice.
    """
    check_folder(folder, "--out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise ConfigError(f"{folder} holds other files than an export", hint="name a new or an empty folder with --out")
    write = {"safetensors": _safetensors, "torchscript": _torchscript, "onnx": _onnx}[form]
    networks, contents = write(encoder)
    difference = max(_difference(encoder, networks[modality], modality) for modality in Modality)
    if not difference <= LARGEST_DIFFERENCE:
        raise TrainingError(
            f"the exported {form} gives vectors that differ by {difference:.1e}, more than {LARGEST_DIFFERENCE:.0e}",
            hint="take another format, or report this with the versions that `vireid --version` prints",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        atomic_files.replace_file(folder / name, _writer(content))
    atomic_files.write_json(folder / DESCRIPTION, _description(encoder, form, sorted(contents)))
    return Exported(folder, (*sorted(contents), DESCRIPTION), difference)


def _safetensors(encoder: RunEncoder) -> tuple[PerModality[Network], dict[str, bytes]]:
    content = save({name: tensor.contiguous() for name, tensor in encoder.encoder.state_dict().items()})
    again = empty_encoder(encoder.config)
    again.load_state_dict(load(content))
    return _descriptors(encoder, again.eval()).map(_of_torch), {WEIGHTS: content}


def _torchscript(encoder: RunEncoder) -> tuple[PerModality[Network], dict[str, bytes]]:
    def traced(descriptor: Descriptor) -> bytes:
        buffer = io.BytesIO()
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # about constants that do not depend on the batch: image size, heads, flip
            torch.jit.save(torch.jit.trace(descriptor, (_images(encoder, 2),), check_trace=False), buffer)
        return buffer.getvalue()

    contents = _descriptors(encoder, encoder.encoder).map(traced)
    networks = contents.map(lambda content: _of_torch(torch.jit.load(io.BytesIO(content), map_location="cpu")))
    return networks, {f"{modality}.pt": content for modality, content in contents.items()}


def _onnx(encoder: RunEncoder) -> tuple[PerModality[Network], dict[str, bytes]]:
    runtime, *_ = [_library(name) for name in ("onnxruntime", "onnxscript", "onnx")]

    def translated(descriptor: Descriptor) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                descriptor,
                (_images(encoder, 2),),
                dynamo=True,
                optimize=False,  # that drops summands of 1e-12, such as the one under the pooling's root
                opset_version=OPSET,
                input_names=["images"],
                output_names=["vectors"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
        assert program is not None, "dynamo=True returns the program"
        content: bytes = program.model_proto.SerializeToString()
        return content

    def opened(content: bytes) -> Network:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return lambda images: session.run(["vectors"], {"images": images})[0]

    contents = _descriptors(encoder, encoder.encoder).map(translated)
    return contents.map(opened), {f"{modality}.onnx": content for modality, content in contents.items()}


def _descriptors(encoder: RunEncoder, network: DualStemEncoder) -> PerModality[Descriptor]:
    return PerModality.build(lambda modality: Descriptor(network, modality, encoder.heads, encoder.flip).eval())


def _of_torch(network: torch.nn.Module) -> Network:
    def run(images: Float32[np.ndarray, "n 3 h w"]) -> Float32[np.ndarray, "n dim"]:
        with torch.inference_mode():
            vectors: Float32[np.ndarray, "n dim"] = network(torch.from_numpy(images)).numpy()
        return vectors

    return run


def _images(encoder: RunEncoder, count: int) -> Tensor:
    """Noise with the scale of normalised images."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, encoder.height, encoder.width, generator=generator)


def _difference(encoder: RunEncoder, network: Network, modality: Modality) -> float:
    """Largest difference of any component, at batch sizes other than the traced one."""
    own = _of_torch(_descriptors(encoder, encoder.encoder)[modality])
    batches = [_images(encoder, count).numpy() for count in _TRIED]
    return max(float(np.abs(own(batch) - network(batch)).max()) for batch in batches)


def _description(encoder: RunEncoder, form: Format, files: list[str]) -> dict[str, Any]:
    """The content of `model.json`: all that a program needs to use the files."""
    mean, deviation = colour_statistics(encoder.normalisation)
    return {
        "format": form,
        "files": files,
        "run": encoder.name,
        "marks": list(marks_of(record_of(encoder.config))),
        "round": encoder.round,
        "encoder": encoder.digest,
        "input": {
            "name": "images",
            "type": "float32",
            "shape": ["batch", 3, encoder.height, encoder.width],
            "colours": "red, green, blue; a grey image's one channel three times",
            "files": encoder.reading.to_dict(),
            "resize": "Lanczos to height x width, without crop",
            "scale": "values from 0 to 1, less mean, divided by deviation",
            "mean": list(mean),
            "deviation": list(deviation),
        },
        "output": {
            "name": "vectors",
            "type": "float32",
            "shape": ["batch", "dim"],
            "heads": [head.value for head in encoder.heads],
            "flip": encoder.flip,
            "compare_by": "cosine",
        },
        "config": record_of(encoder.config),
    }


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name}, which onnx needs, cannot be imported: {error}", hint=_INSTALL) from error


def _writer(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write
