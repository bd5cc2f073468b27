"""Features of all images of one modality."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from models.encoder import Encoded, Flip, Head, describe_images
from models.modality import Modality
from models.precision import Precision, network_precision
from pipeline.console import progress
from pipeline.data.images import StoredImages
from pipeline.data.pixel_supply import PixelSupply, StreamedPixels
from pipeline.data.transforms.augmentation import Normalisation, preprocess
from pipeline.errors import TrainingError
from pipeline.runtime.device import largest_fitting
from pipeline.runtime.distributed import ALONE, Processes

HELD_BYTES = 256 * 2**20
"""Features that may wait on the device before they are copied to the host, which waits for the device."""


@runtime_checkable
class ImageEncoder(Protocol):
    """A module that encodes images of one modality, such as `models.encoder.DualStemEncoder`."""

    def encode(
        self, images: Float[Tensor, "batch 3 height width"], modality: Modality, *, heads: frozenset[Head]
    ) -> Encoded:
        """Features of normalised images; those of `heads` are computed."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """The module and all its parts."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The trained values."""
        ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Other state, such as batch-norm statistics."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureBank:
    """One vector an image, in the order of the images; out of date after any optimiser step."""

    vectors: Float32[np.ndarray, "n d"]
    modality: Modality


def extract_features(
    encoder: ImageEncoder,
    images: StoredImages,
    *,
    heads: tuple[Head, ...],
    batch_size: int,
    device: torch.device,
    normalisation: Normalisation,
    flip: Flip = "none",
    description: str = "encode images",
    pixels: PixelSupply | None = None,
    precision: Precision = "float32",
    processes: Processes = ALONE,
) -> FeatureBank:
    """Encode every image once, without gradients and in evaluation mode; the encoder's modes are restored.

    Images are read in the order of the store and the features returned in the order of the images: float32 [n, d], or
    [n, 2 d] with flip `concat`; `models.encoder.describe_images` defines them. `heads` are concatenated. `pixels`
    defaults to the store, read one batch ahead. Each of `processes` encodes a share of the images; all get all
    features.

    Raises:
        TrainingError: A feature is not finite, or the device has too little memory for a batch.

    Cost: 280 MB on the host for 34,167 images and 2,048 dimensions; at most 256 MB of features on a GPU, which
    synchronises only when these are copied.
    """
    assert len(images) > 0, "no images to encode"
    order = np.argsort(images.rows, kind="stable")
    if len(order) < processes.count:
        raise TrainingError(
            f"{len(order)} {images.modality} images cannot be shared by {processes.count} processes",
            hint="use fewer processes",
        )
    own = order[processes.share(len(order))]
    rows = _encode_all(
        encoder,
        pixels or StreamedPixels(images, device),
        [own[start : start + batch_size] for start in range(0, len(own), batch_size)],
        partial(
            describe_pixels, encoder, modality=images.modality, heads=heads, normalisation=normalisation, flip=flip,
            precision=precision,
        ),
        description,
    )  # fmt: skip
    vectors = np.empty((len(images), rows.shape[1]), dtype=np.float32)
    vectors[order] = processes.gather_rows(rows, len(images))
    _check_finite(vectors, images.modality)
    return FeatureBank(vectors, images.modality)


def encoder_digest(encoder: ImageEncoder) -> str:
    """Sixteen hex digits over names and values of all parameters and buffers; 0.3 s for RN50."""
    digest = hashlib.sha256()
    for name, tensor in (*encoder.named_parameters(), *encoder.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _encode_all(
    encoder: ImageEncoder,
    pixels: PixelSupply,
    batches: list[Int64[np.ndarray, " _"]],
    encode: Callable[[UInt8[Tensor, "batch height width 3"]], Float[Tensor, "batch d"]],
    description: str,
) -> Float32[np.ndarray, "share d"]:
    """The features of all batches, concatenated on the host."""
    found: list[Float32[np.ndarray, "_ d"]] = []
    held: list[Float[Tensor, "_ d"]] = []
    supply = zip(batches, pixels.batches(batches), strict=True)
    num_images = sum(len(batch) for batch in batches)
    with torch.inference_mode(), _evaluation_mode(encoder):
        for _, chunk in progress(supply, description, num_images, "images", count=lambda pair: len(pair[0])):
            held.append(_in_memory(encode, chunk))
            if held[0].device.type == "cpu" or len(held) * held[0].nbytes >= HELD_BYTES:
                found.extend(features.cpu().numpy() for features in held)
                held.clear()
    found.extend(features.cpu().numpy() for features in held)
    return np.concatenate(found)


def describe_pixels(
    encoder: ImageEncoder,
    pixels: UInt8[Tensor, "batch height width 3"],
    *,
    modality: Modality,
    heads: tuple[Head, ...],
    normalisation: Normalisation,
    flip: Flip,
    precision: Precision,
) -> Float[Tensor, "batch d"]:
    """The vectors of one batch on the device; arguments as for `extract_features`."""

    def encoded(images: Tensor) -> Encoded:
        with network_precision(precision, images.device):
            return encoder.encode(images, modality, heads=frozenset(heads))

    return describe_images(encoded, preprocess(pixels, normalisation), heads=heads, flip=flip)


def _in_memory(
    encode: Callable[[UInt8[Tensor, "batch height width 3"]], Float[Tensor, "batch d"]],
    pixels: UInt8[Tensor, "batch height width 3"],
) -> Float[Tensor, "batch d"]:
    try:
        return encode(pixels)
    except torch.OutOfMemoryError:
        pass  # not here: the error would keep the tensors of its frames alive
    fitting = largest_fitting(lambda size: encode(pixels[:size]), len(pixels))
    raise TrainingError(
        f"{pixels.device} has too little memory to encode {len(pixels)} images at once",
        hint=f"{fitting} fit: --set execution.extraction_batch_size={fitting}"
        if fitting
        else "not even one fits: free the device, or lower images.height and images.width",
    )


def _check_finite(vectors: Float32[np.ndarray, "n d"], modality: Modality) -> None:
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise TrainingError(
            f"{len(broken):,} of {len(vectors):,} {modality} features are not finite, first: row {broken[0]}",
            hint="training has diverged: lower optimisation.learning_rate and start a new run",
        )


@contextmanager
def _evaluation_mode(encoder: ImageEncoder) -> Iterator[None]:
    """Set each module by itself: a frozen part of a network in training may be in evaluation mode."""
    flags = [(module, module.training) for module in encoder.modules()]
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
