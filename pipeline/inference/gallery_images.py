"""The images of a gallery as they are now, and what a refresh did with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from models.modality import Modality
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import DataError
from pipeline.inference.embedding import Embedded, embed_images
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.gallery_features import GalleryFeatures, is_feature_file, read_gallery_features
from pipeline.inference.index import GallerySource, IndexedFile, IndexRecord
from pipeline.inference.milvus_gallery import MilvusRecord

EXACT_UP_TO = 300_000
"""Images up to which every one is compared with every query: 2.5 GB at 2,048 dimensions."""

Kind = Literal["auto", "exact", "ivf"]


def wants_lists(kind: Kind, images: int) -> bool:
    """Whether a gallery of so many images is searched in inverted lists."""
    return kind == "ivf" or (kind == "auto" and images > EXACT_UP_TO)


def recorded_source(record: IndexRecord | MilvusRecord, place: object, modality: Modality) -> GallerySource:
    """The images of the index at a place; DataError if they are of another modality."""
    root = record.source_root
    found = GallerySource(Path(record.source), record.modality, record.splits, None if root is None else Path(root))
    if found.modality is not modality:
        raise DataError(
            f"{place} holds {found.modality} images, but {modality} ones are needed",
            hint="choose the other --direction, or another gallery",
        )
    return found


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Counts of images: kept, embedded (new or changed), gone, unreadable."""

    kept: int
    embedded: int
    gone: int
    unreadable: int

    def __str__(self) -> str:
        parts = {
            "as before": self.kept, "embedded": self.embedded, "gone": self.gone, "not readable": self.unreadable,
        }  # fmt: skip
        return ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)


@dataclass(frozen=True, slots=True, eq=False)
class GalleryImages:
    """The images that are listed, and those of them that exist: their rows in the list, and their current states.

    `given` are the vectors of a gallery that is a feature file.
    """

    listed: ImageList
    given: GalleryFeatures | None
    rows: tuple[int, ...]
    files: tuple[IndexedFile, ...]

    @property
    def root(self) -> Path:
        """The folder that paths start from."""
        return self.listed.root.resolve()

    def embed(
        self,
        encoder: TrainedEncoder,
        rows: Int64[np.ndarray, " m"],
        *,
        batch_size: int,
        parts: Path | None,
        workers: int | None,
    ) -> Embedded | None:
        """The vectors of some rows of the list, numbered from 0, embedded or given; None without any."""
        if not len(rows):
            return None
        if self.given is not None:
            return self.given.only(rows)
        return embed_images(encoder, self.listed.only(rows), batch_size=batch_size, parts=parts, workers=workers)


def gallery_images(source: GallerySource, encoder: TrainedEncoder) -> GalleryImages:
    """List the images of a gallery; none may exist, see `require_existing`.

    Raises:
        DataError: See `list_images`, and `read_gallery_features`.

    Cost: one `stat` an image.
    """
    given = read_gallery_features(source, encoder) if is_feature_file(source.path) else None
    listed = given.images if given else list_images(source.path, source.modality, source.splits, source.root)
    rows, files = list[int](), list[IndexedFile]()
    for row, path in enumerate(listed.paths):
        try:
            found = (source.path if given else listed.root / path).stat()
        except (OSError, ValueError):
            continue  # it vanished after it was listed, or no file can have this name
        rows.append(row)
        files.append(IndexedFile(path, found.st_size, found.st_mtime_ns, *listed.known_of(row)))
    return GalleryImages(listed, given, tuple(rows), tuple(files))


def origin_of(source: GallerySource, encoder: TrainedEncoder, root: Path) -> dict[str, Any]:
    """The entries of an index's record that state where images and vectors come from."""
    return {
        "encoder": encoder.digest,
        "reading": encoder.reading.to_dict(),
        "modality": source.modality.value,
        "source": str(source.path.resolve()),
        "splits": list(source.splits),
        "source_root": None if source.root is None else str(source.root.resolve()),
        "root": str(root),
    }


def require_existing(images: GalleryImages) -> None:
    """DataError if none of the images exists."""
    if not images.files:
        listed = images.listed
        raise DataError(
            f"none of {len(listed):,} images exists, first: {listed.root / listed.paths[0]}",
            hint="if the paths of a manifest or a list are relative to another folder, name it with --root",
        )
