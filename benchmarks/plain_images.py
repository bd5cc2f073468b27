"""Images on their way to the network, as published code of this field handles them: PIL, worker processes, one by one.

Random changes come from torch's global generator, as everywhere in torchvision's first transforms. The half of
`benchmarks/plain_training.py` that needs no network.

Source: written from the description in Chen et al., ACM MM 2023 (CCLNet), transforms for SYSU-MM01, and from the habit
of public code that one item of the data set is one image of each modality.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.modality import Modality, PerModality
from models.torchvision_operators import define_missing_operators

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
NO_LABEL = -1

Transform = Callable[[Image.Image], Tensor]
Item = tuple[tuple[Tensor, Tensor], tuple[int, int], tuple[int, int]]


@functools.cache
def torchvision_transforms() -> ModuleType:
    """The first generation of torchvision's transforms, importable beside any torch."""
    define_missing_operators()
    return importlib.import_module("torchvision.transforms")


def training_transform(modality: Modality, height: int, width: int, padding: int = 10) -> Transform:
    """Random changes of one image, the CCLNet recipe for SYSU-MM01; only visible images lose their colours."""
    t = torchvision_transforms()
    colours = [t.RandomGrayscale(p=0.5)] if modality is Modality.VISIBLE else []
    transform: Transform = t.Compose(
        [
            *colours,
            t.RandomHorizontalFlip(p=0.5),
            t.Pad(padding),
            t.RandomCrop((height, width)),
            t.ToTensor(),
            t.Normalize(MEAN, STD),
            t.RandomErasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=0),
        ]
    )
    return transform


def plain_transform() -> Transform:
    """To numbers, normalised, and nothing else."""
    t = torchvision_transforms()
    transform: Transform = t.Compose([t.ToTensor(), t.Normalize(MEAN, STD)])
    return transform


class PlainPairs(Dataset[Item]):
    """A visible and an infrared image an item, changed one at a time.

    Args:
        pixels: Decoded images, in memory.
        labels: The cluster of each image.
        positions: Which images to show, in this order; `CrossModalBatches.positions`, flat.
        transforms: From a PIL image to network input.
        text_rows: The row of each image's text, -1 for none; left out, no image has one.

    Raises:
        ValueError: The modalities have not the same number of positions.
    """

    def __init__(
        self,
        pixels: PerModality[UInt8[np.ndarray, "n height width 3"]],
        labels: PerModality[Int64[np.ndarray, " n"]],
        positions: PerModality[Int64[np.ndarray, " shown"]],
        transforms: PerModality[Transform],
        text_rows: PerModality[Int64[np.ndarray, " n"]] | None = None,
    ) -> None:
        if len(positions.visible) != len(positions.infrared):
            raise ValueError(f"{len(positions.visible)} visible and {len(positions.infrared)} infrared positions")
        self.pixels = pixels
        self.labels = labels
        self.positions = positions
        self.transforms = transforms
        self.text_rows = labels.map(lambda some: np.full_like(some, NO_LABEL)) if text_rows is None else text_rows

    def __len__(self) -> int:
        return len(self.positions.visible)

    def __getitem__(self, index: int) -> Item:
        visible, infrared = (int(at[index]) for at in self.positions)
        return (
            (
                self.transforms.visible(as_pil(self.pixels.visible[visible])),
                self.transforms.infrared(as_pil(self.pixels.infrared[infrared])),
            ),
            (int(self.labels.visible[visible]), int(self.labels.infrared[infrared])),
            (int(self.text_rows.visible[visible]), int(self.text_rows.infrared[infrared])),
        )


class PlainImages(Dataset[Tensor]):
    """The images of one modality, as they are."""

    def __init__(self, pixels: UInt8[np.ndarray, "n height width 3"]) -> None:
        self.pixels = pixels
        self.transform = plain_transform()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Float[Tensor, "3 height width"]:
        return self.transform(as_pil(self.pixels[index]))


def as_pil(pixels: UInt8[np.ndarray, "height width 3"]) -> Image.Image:
    """A PIL image of the same pixels."""
    return Image.fromarray(pixels)


def plain_loader(images: Dataset[Any], *, batch_size: int, workers: int, device: torch.device) -> DataLoader[Any]:
    """Batches in the order of the data set; made anew for each epoch, and its workers with it.

    Args:
        images: `PlainPairs` or `PlainImages`.
        batch_size: Items in a batch.
        workers: Processes that change images; 0 for none but this one.
        device: Where the batches will go.
    """
    return DataLoader(images, batch_size=batch_size, num_workers=workers, pin_memory=device.type == "cuda")
