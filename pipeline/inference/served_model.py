"""The model that `mlflow models predict` serves: a table of image paths in, vectors out.

MLflow imports this module by name, so this package must be installed where the model is served.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from models.modality import Modality
from pipeline.data.image_list import ImageList
from pipeline.inference.embedding import embed_images
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.saved_encoder import read_saved_encoder

_BATCH = 64


class ServedEncoder:
    """MLflow's interface to an encoder of both modalities."""

    def __init__(self, encoder: TrainedEncoder) -> None:
        self._encoder = encoder

    def predict(self, table: Any, params: Any = None) -> Float32[np.ndarray, "n dim"]:  # noqa: ARG002 - MLflow's form
        """One vector a row of a data frame with columns `path` (on this machine) and `modality` (visible or infrared).

        Raises:
            ValueError: A modality is unknown, or an image cannot be read.
        """
        names = list(table["modality"])
        unknown = [row for row, name in enumerate(names) if name not in list(Modality)]
        if unknown:
            raise ValueError(f"row {unknown[0]}: modality {names[unknown[0]]!r} is neither visible nor infrared")
        images = ImageList(Path(), tuple(table["path"]), np.array([name == Modality.INFRARED for name in names]))
        embedded = embed_images(self._encoder, images, batch_size=_BATCH)
        if embedded.unreadable:
            first = embedded.unreadable[0]
            raise ValueError(f"{first.path}: {first.reason}")
        vectors = np.empty_like(embedded.vectors)
        vectors[embedded.rows] = embedded.vectors
        return vectors


def _load_pyfunc(path: str) -> ServedEncoder:
    """MLflow's entry point; `path` is the data folder of `save_table_model`."""
    return ServedEncoder(read_saved_encoder(Path(path), "the served model", "cpu"))
