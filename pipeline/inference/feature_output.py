"""Vectors of images as a file, in the form that `vireid rank` and `vireid label` read."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from models.modality import Modality
from pipeline.data.image_list import ImageList
from pipeline.errors import ConfigError
from pipeline.evaluation.feature_files import write_columns
from pipeline.inference.embedding import embed_images, forget_parts, require_some
from pipeline.inference.encoder import TrainedEncoder


@dataclass(frozen=True, slots=True)
class Written:
    """Content of a feature file, and how many images it lacks."""

    images: int
    dim: int
    unreadable: int
    people_known: bool
    encoder: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        missing = f", {self.unreadable:,} images could not be read" if self.unreadable else ""
        return f"{self.images:,} vectors of {self.dim:,} dimensions{missing}"


def embed_to_file(
    encoder: TrainedEncoder, images: ImageList, out: Path, *, batch_size: int, workers: int | None = None
) -> Written:
    """Write `features`, `paths`, `modalities`, `encoder`, and for a manifest `cameras` and `person_ids`.

    A killed call resumes when repeated; until then its chunks are beside `out`, which is replaced at the end.

    Raises:
        ConfigError: The file's name does not end in `.npz`.
        DataError: No image can be read.
        CheckpointError: The file cannot be written.
    """
    if out.suffix != ".npz":
        raise ConfigError(f"{out}: vectors are written as a .npz archive", hint="choose a name that ends in .npz")
    parts = out.with_name(f"{out.name}.parts")
    embedded = require_some(embed_images(encoder, images, batch_size=batch_size, parts=parts, workers=workers))
    readable = images.only(embedded.rows)
    columns: dict[str, Shaped[np.ndarray, "n *rest"]] = {
        "features": embedded.vectors,
        "paths": np.array(readable.paths),
        "modalities": np.where(readable.infrared, str(Modality.INFRARED), str(Modality.VISIBLE)),
        "encoder": np.array(encoder.digest),
    }
    known = readable.known
    if known is not None:
        columns["cameras"] = np.array([known.camera_numbers[name] for name in known.cameras], dtype=np.int64)
        if all(known.people):
            columns["person_ids"] = np.array([known.person_numbers[name] for name in known.people], dtype=np.int64)
    write_columns(out, columns)
    forget_parts(parts)
    return Written(
        len(embedded.rows), embedded.vectors.shape[1], len(embedded.unreadable), "person_ids" in columns, encoder.digest
    )
