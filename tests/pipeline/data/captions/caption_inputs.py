"""A data set of seven images that exists in memory only, and caption files for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.images import ImageTable
from pipeline.data.truth import Dataset, PersonIds, SplitTables

VISIBLE = ("cam1/1/1.jpg", "cam1/1/2.jpg", "cam1/2/1.jpg", "cam1/2/2.jpg")
INFRARED = ("cam3/1/1.jpg", "cam3/1/2.jpg", "cam3/2/1.jpg")
TEST = "cam1/9/1.jpg"


def table(root: Path, paths: tuple[str, ...], camera: int, modality: Modality) -> ImageTable:
    return ImageTable(root, paths, np.full(len(paths), camera), modality)


def small_dataset(root: Path, *, partial: bool = False, people: PerModality[list[int]] | None = None) -> Dataset:
    """People 1 and 2, camera 1 visible and camera 3 infrared; a visible image of person 9 is for the test."""
    shown = people or PerModality([1, 1, 2, 2], [1, 1, 2])
    training = SplitTables(
        PerModality(table(root, VISIBLE, 1, Modality.VISIBLE), table(root, INFRARED, 3, Modality.INFRARED)),
        shown.map(lambda ids: PersonIds(np.array(ids, dtype=np.int64))),
    )
    everything = PerModality(table(root, (*VISIBLE, TEST), 1, Modality.VISIBLE), training.images.infrared)
    return Dataset("small", "custom", root, everything, training, None, None, partial, "sha256:0")


def rows() -> list[dict[str, Any]]:
    """A caption for every training image, out of order."""
    visible = [{"path": path, "modality": "visible", "caption": f"visible {path}"} for path in VISIBLE]
    infrared = [{"path": path, "modality": "infrared", "caption": f"infrared {path}"} for path in INFRARED]
    return [*reversed(infrared), *visible]


def write_lines(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path
