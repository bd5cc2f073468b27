"""What inference needs of a trained encoder, wherever it comes from. Importable without training code."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from models.modality import Modality
from models.precision import Precision
from pipeline.errors import TrainingError
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

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """One vector an image, not always of unit length.

        Raises:
            TrainingError: A vector is not finite, or the device has too little memory.
        """
        ...


def encode_batch(
    name: str, encode: Callable[[], Float[Tensor, "n dim"]], count: int, device: torch.device, precision: Precision
) -> Float32[np.ndarray, "n dim"]:
    """Encode a batch without gradients and copy its vectors to the host.

    Args:
        name: Of the encoder, for errors.
        encode: Returns the vectors.
        count: Images in the batch, for errors.
        device: Of the encoder.
        precision: `float32` also turns off TF32 in convolutions.

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
