"""The encoder that a run has trained, without its data set, its optimiser or the weights that it started from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from models.clip import WeightsLoadError, load_clip
from models.descriptor import Flip
from models.encoder import DualStemEncoder, Head
from models.imagenet import RESNET50, load_imagenet
from models.modality import Modality
from models.transfer import upload
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import validate_config
from pipeline.data.transforms.augmentation import Normalisation
from pipeline.errors import CheckpointError, TrainingError, WeightsError
from pipeline.features import describe_pixels, encoder_digest
from pipeline.methods import method_of
from pipeline.runtime.device import resolve_device, resolve_precision
from pipeline.storage import layout as run_files
from pipeline.storage.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

_NO_RUN = "name a run folder, its checkpoint.pt, or a model of MLflow such as models:/NAME/1; `vireid runs` lists runs"


@runtime_checkable
class TrainedEncoder(Protocol):
    """From pixels of images to the vectors that they are searched by."""

    @property
    def name(self) -> str:
        """Where it comes from, for people."""
        ...

    @property
    def digest(self) -> str:
        """Which weights it has, and how images are described by them; equal ones give equal vectors."""
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


@dataclass(frozen=True, eq=False)
class RunEncoder:
    """The encoder of a run after one of its rounds.

    Attributes:
        encoder: In evaluation mode, on the device.
        config: What the run was made with.
        round: After which round.
        device: Where it computes.
    """

    name: str
    encoder: DualStemEncoder
    config: AnyConfig
    round: int
    device: torch.device

    @cached_property
    def digest(self) -> str:
        """That of the weights, the pixels' normalisation and size, and the heads."""
        evaluation = self.config.evaluation
        parts = [encoder_digest(self.encoder), self.normalisation, f"{self.height}x{self.width}"]
        return "-".join([*parts, "+".join(evaluation.heads), evaluation.flip])

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
        """Whose mean and standard deviation the pixels get."""
        return self.config.images.normalisation

    @property
    def heads(self) -> tuple[Head, ...]:
        """Which features stand side by side in a vector."""
        return tuple(Head(name) for name in self.config.evaluation.heads)

    @property
    def flip(self) -> Flip:
        """What mirrored images add."""
        return self.config.evaluation.flip

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """As for `TrainedEncoder`."""
        return in_memory(
            self.name,
            lambda: describe_pixels(
                self.encoder,
                upload(pixels, self.device),
                modality=modality,
                heads=self.heads,
                normalisation=self.normalisation,
                flip=self.flip,
                precision=resolve_precision("auto", self.device),
            ),
            len(pixels),
            self.device,
        )


def in_memory(
    name: str, encode: Callable[[], Float[Tensor, "n dim"]], count: int, device: torch.device
) -> Float32[np.ndarray, "n dim"]:
    """Encode a batch without gradients, and bring its vectors to the host.

    Args:
        name: Of the encoder, for errors.
        encode: What gives the vectors.
        count: How many images the batch has.
        device: Where it computes.

    Raises:
        TrainingError: A vector is not finite, or the device has too little memory.
    """
    try:
        with torch.inference_mode():
            vectors: Float32[np.ndarray, "n dim"] = encode().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} has too little memory to encode {count} images at once",
            hint="lower --batch-size, or take --device cpu",
        ) from error
    if not np.isfinite(vectors).all():
        raise TrainingError(f"the model of {name} gives vectors that are not finite", hint="its training has diverged")
    return vectors


def read_run_encoder(path: Path, device: str = "auto") -> RunEncoder:
    """The encoder of a run; its folder is neither locked nor written to, so that the run may be going on.

    Args:
        path: The run's folder, which stands for its result; or a checkpoint in it, which stands for its own round.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        CheckpointError: There is no run, it has no finished round, or the checkpoint is damaged.
        WeightsError: Its architecture cannot be built here.
        ConfigError: There is no such device.

    Cost: one read of the checkpoint, which also holds the optimiser: 0.6 GB for RN50.
    """
    folder = path
    if path.is_file():
        folder = path.parent.parent if path.parent.name == run_files.CHECKPOINTS else path.parent
    record = run_files.read_record(folder) if folder.is_dir() else None
    if record is None:
        raise CheckpointError(f"{path} holds no run", hint=_NO_RUN)
    checkpoint = read_checkpoint(path if path.is_file() else folder / run_files.CHECKPOINT)
    if checkpoint is None or checkpoint["completed"] == 0:
        raise CheckpointError(f"{path} has no finished round yet", hint="wait for its first round, or start it again")
    config = validate_config(record["config"])
    selected: dict[str, Any] | None = None if path.is_file() else checkpoint["selected"]
    round_, weights = (
        (checkpoint["completed"], checkpoint["encoder"])
        if selected is None
        else (selected["round"], selected["encoder"])
    )
    place = resolve_device(device)
    encoder = empty_encoder(config)
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights of {path} do not fit {config.model.architecture}: {str(error).splitlines()[0]}",
            hint=f"the run took its architecture from {config.model.weights}: put that back in its place",
        ) from error
    logger.info("%s: %s, after round %d", folder.name, config.method, round_)
    return RunEncoder(folder.name, encoder.to(place).eval(), config, round_, place)


def empty_encoder(config: AnyConfig) -> DualStemEncoder:
    """The run's network with any weights: those that it started from are not needed, and may not be here.

    Raises:
        WeightsError: Its architecture cannot be built here.
    """
    model = config.model
    try:
        if model.architecture == RESNET50:
            clip = load_imagenet("random")
        else:
            brings_architecture = model.weights == "demo" or Path(model.weights).is_dir()
            clip = load_clip(model.architecture, model.weights if brings_architecture else "random")
    except WeightsLoadError as error:
        raise WeightsError(str(error), hint=error.hint) from error
    return method_of(config).new_encoder(config, clip)
