"""A gallery that is a feature file: its vectors are indexed as they are, and its images are not opened."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from models.file_kinds import NPZ, PARQUET, what_is
from models.modality import Modality
from pipeline.data.image_list import ImageList
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.feature_files import read_image_vectors, read_record
from pipeline.inference.embedding import Embedded
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.index import GallerySource

_HINT = "name a file that `vireid embed` wrote with the run of the queries and the same options, or the images"


@dataclass(frozen=True, slots=True, eq=False)
class GalleryFeatures:
    """The images of one modality in a feature file, and their vectors; cameras and people are not known by name."""

    images: ImageList
    embedded: Embedded

    def only(self, rows: Int64[np.ndarray, " m"]) -> Embedded:
        """The vectors of some images, numbered from 0."""
        vectors = self.embedded.vectors
        chosen = vectors if len(rows) == len(vectors) else vectors[rows]
        return Embedded(chosen, np.arange(len(rows)), ())


def is_feature_file(path: Path) -> bool:
    """Whether a path is an archive or a Parquet table."""
    return path.is_file() and what_is(path).name in (NPZ, PARQUET)


def read_gallery_features(source: GallerySource, encoder: TrainedEncoder) -> GalleryFeatures:
    """Read the vectors of a gallery.

    Raises:
        ConfigError: Splits or a root are given, which a feature file does not have.
        DataError: The file is damaged, of another encoder, or has no image of the modality.

    Cost: the vectors of both modalities once, those of one twice where the file has both.
    """
    path = source.path
    if source.splits or source.root is not None:
        raise ConfigError(f"{path} has features, and neither splits nor a root", hint="omit --gallery-split and --root")
    record = read_record(path)
    found, root = record.get("encoder"), record.get("root")
    if found != encoder.digest or not isinstance(root, str):
        raise DataError(
            f"{path} was made by another encoder ({found}) than that of the queries ({encoder.digest})", _HINT
        )
    vectors, paths, infrared = read_image_vectors(path)
    rows = np.flatnonzero(infrared == (source.modality is Modality.INFRARED))
    if not len(rows):
        raise DataError(f"{path} has no {source.modality} images", hint="choose the other --direction")
    images = ImageList(Path(root), paths, infrared)
    if len(rows) < len(paths):
        images, vectors = images.only(rows), vectors[rows]
    return GalleryFeatures(images, Embedded(vectors.astype(np.float32, copy=False), np.arange(len(rows)), ()))
