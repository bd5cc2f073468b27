"""What MLflow calls when it serves a run: a table of image paths in, vectors out (`mlflow models predict`).

MLflow imports this module by its name, which the model's description has, so that this package must be installed there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from models.modality import Modality
from pipeline.data.any_image import decode_any_image
from pipeline.data.decoding import reason_of

_BATCH = 64


class ServedEncoder:
    """The graphs of both modalities.

    Args:
        folder: Holds `visible.pt2` and `infrared.pt2`.
        height: Of the images, pixels.
        width: Of the images, pixels.
    """

    def __init__(self, folder: Path, height: int, width: int) -> None:
        self._folder, self._height, self._width = folder, height, width
        self._graphs: dict[Modality, Any] = {}

    def predict(self, table: Any, params: Any = None) -> Float32[np.ndarray, "n dim"]:  # noqa: ARG002 - MLflow's form
        """One vector a row.

        Args:
            table: A data frame with columns `path`, of an image on this machine, and `modality`, visible or infrared.
            params: None are known.

        Raises:
            ValueError: A modality is unknown, or an image cannot be read; the row is named.
        """
        paths, names = list(table["path"]), list(table["modality"])
        unknown = [row for row, name in enumerate(names) if name not in list(Modality)]
        if unknown:
            raise ValueError(f"row {unknown[0]}: modality {names[unknown[0]]!r} is neither visible nor infrared")
        rows: list[Float32[np.ndarray, "dim"] | None] = [None] * len(paths)
        for modality in Modality:
            own = [row for row, name in enumerate(names) if name == modality]
            for start in range(0, len(own), _BATCH):
                batch = own[start : start + _BATCH]
                for row, vector in zip(
                    batch, self._encode([paths[row] for row in batch], batch, modality), strict=True
                ):
                    rows[row] = vector
        return np.stack([row for row in rows if row is not None])

    def _encode(
        self, paths: Sequence[str], rows: Sequence[int], modality: Modality
    ) -> Float32[np.ndarray, "batch dim"]:
        if modality not in self._graphs:
            self._graphs[modality] = torch.export.load(self._folder / f"{modality}.pt2").module()
        pixels = np.empty((len(paths), self._height, self._width, 3), np.uint8)
        for place, (path, row) in enumerate(zip(paths, rows, strict=True)):
            try:
                pixels[place] = decode_any_image(Path(path), self._height, self._width).pixels
            except (OSError, ValueError) as error:
                raise ValueError(f"row {row}: {path}: {reason_of(error)}") from error
        with torch.inference_mode():
            vectors: Float32[np.ndarray, "batch dim"] = self._graphs[modality](torch.from_numpy(pixels)).numpy()
        return vectors


def _load_pyfunc(path: str) -> ServedEncoder:
    """MLflow's entry: the folder that `save_table_model` was given."""
    height, width = (int(part) for part in (Path(path) / "size.txt").read_text(encoding="ascii").split())
    return ServedEncoder(Path(path), height, width)
