"""A trained encoder: its interface, and that of a run. Importable without training code."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from models.encoder import DualStemEncoder, Flip, Head
from models.modality import Modality
from models.precision import Precision
from models.transfer import upload
from pipeline.config.experiment import AnyConfig
from pipeline.data.image_files import FROM_ANYWHERE, ImageReading
from pipeline.data.transforms.augmentation import Normalisation
from pipeline.errors import TrainingError
from pipeline.features import describe_pixels, encoder_digest
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

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on synthetic people."""
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
class RunEncoder:
    """The encoder of a run (`name` of its folder) after one of its rounds, in evaluation mode, on `device`."""

    name: str
    encoder: DualStemEncoder
    config: AnyConfig
    round: int
    device: torch.device
    precision: Precision
    reading: ImageReading = FROM_ANYWHERE
    synthetic: bool = False

    @cached_property
    def digest(self) -> str:
        """Of weights, normalisation, image size, heads, flip, precision, and a reading that is not the default."""
        evaluation = self.config.evaluation
        parts = [encoder_digest(self.encoder), self.normalisation, f"{self.height}x{self.width}"]
        return "-".join([*parts, "+".join(evaluation.heads), evaluation.flip, self.precision]) + self.reading.suffix

    @property
    def height(self) -> int:
        """Of the images, pixels."""
        return self.config.images.height

    @property
    def width(self) -> int:
        """Of the images, pixels."""
        return self.config.images.width

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of the pixels."""
        return self.config.images.normalisation

    @property
    def heads(self) -> tuple[Head, ...]:
        """Features that are concatenated into a vector."""
        return tuple(Head(name) for name in self.config.evaluation.heads)

    @property
    def flip(self) -> Flip:
        """How mirrored images are used."""
        return self.config.evaluation.flip

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """See `TrainedEncoder`."""
        return encode_batch(
            self.name,
            lambda: describe_pixels(
                self.encoder,
                upload(pixels, self.device),
                modality=modality,
                heads=self.heads,
                normalisation=self.normalisation,
                flip=self.flip,
                precision=self.precision,
            ),
            len(pixels),
            self.device,
            self.precision,
        )
