"""The interface of a trained encoder, and encoders read from graphs. Importable without training code."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from models.modality import Modality, PerModality
from models.precision import Precision
from pipeline.data.image_files import FROM_ANYWHERE, ImageReading
from pipeline.errors import TrainingError, WeightsError
from pipeline.runtime.device import using_device


@runtime_checkable
class TrainedEncoder(Protocol):
    """Encodes pixels of images as the vectors that are compared."""

    @property
    def name(self) -> str:
        """The origin, for messages."""
        ...

    @property
    def digest(self) -> str:
        """Identifies weights, preprocessing, heads and precision: equal digests, equal vectors up to rounding."""
        ...

    @property
    def height(self) -> int:
        """Of the images, pixels."""
        ...

    @property
    def width(self) -> int:
        """Of the images, pixels."""
        ...

    @property
    def reading(self) -> ImageReading:
        """How image files become its pixels."""
        ...

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """One vector an image, not always of unit length.

        Raises:
            TrainingError: A vector is not finite, or the device has too little memory.
        """
        ...


def encode_batch(
    name: str, encode: Callable[[], Float[Tensor, "n dim"]], count: int, device: torch.device, precision: Precision
) -> Float32[np.ndarray, "n dim"]:
    """Encode a batch of `count` images without gradients and copy its vectors to the host; `name` is for errors.

    `float32` also turns off TF32 in convolutions.

    Raises:
        TrainingError: A vector is not finite, or the device has too little memory.
    """
    try:
        with torch.inference_mode(), using_device(device, precision):
            vectors: Float32[np.ndarray, "n dim"] = encode().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} has too little memory to encode {count} images at once",
            hint="lower --batch-size, or use --device cpu",
        ) from error
    if not np.isfinite(vectors).all():
        raise TrainingError(f"the model of {name} gives vectors that are not finite", hint="its training has diverged")
    return vectors


@dataclass(frozen=True, eq=False)
class GraphEncoder:
    """An encoder from exported graphs (`torch.export`), one per modality, in float32, each loaded at first use."""

    name: str
    weights: str
    height: int
    width: int
    files: PerModality[Path]
    device: torch.device
    reading: ImageReading = FROM_ANYWHERE
    _graphs: dict[Modality, Any] = field(default_factory=dict, init=False)

    @property
    def digest(self) -> str:
        """See `TrainedEncoder`; `weights` identifies the graphs."""
        return self.weights + self.reading.suffix

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """See `TrainedEncoder`."""
        if modality not in self._graphs:
            self._graphs[modality] = _load(self.files[modality], self.device)
        graph = self._graphs[modality]
        return encode_batch(
            self.name, lambda: graph(torch.from_numpy(pixels).to(self.device)), len(pixels), self.device, "float32"
        )


def _load(file: Path, device: torch.device) -> Any:
    """Load a graph; nothing is unpickled."""
    try:
        program = torch.export.load(file)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"{file} is not a graph of vireid: {error}", hint="register the run's models again"
        ) from error
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()
