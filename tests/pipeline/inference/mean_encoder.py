"""An encoder that needs no network: the mean colours of the quarters of an image."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float32, UInt8
from PIL import Image

from models.modality import Modality
from pipeline.data.image_files import FROM_ANYWHERE

needs_milvus = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("pymilvus", "milvus_lite")),
    reason="pymilvus and milvus-lite are not installed (extra milvus)",
)


class MeanEncoder:
    """Counts what it encodes, and stops after `lasts` images as if it were interrupted."""

    height = 8
    width = 4
    reading = FROM_ANYWHERE
    synthetic = False

    def __init__(self, digest: str = "mean", lasts: int = 1_000_000) -> None:
        self.name = "mean"
        self.digest = digest
        self.encoded = 0
        self.lasts = lasts

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """Twelve numbers an image; infrared ones are darker by one."""
        if self.encoded + len(pixels) > self.lasts:
            raise KeyboardInterrupt
        self.encoded += len(pixels)
        quarters = pixels.reshape(len(pixels), 2, 4, 2, 2, 3).mean(axis=(2, 4)).reshape(len(pixels), 12)
        return (quarters + (1 if modality is Modality.VISIBLE else 0)).astype(np.float32)


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 16)) -> Path:
    """Write an image of one colour, by the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path
