"""From what a user names to a gallery that is up to date."""

import logging
from pathlib import Path

from models.modality import Modality
from pipeline.errors import DataError
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.index import Gallery, GallerySource, is_index, open_gallery, read_record
from pipeline.inference.index_refresh import Kind, refresh_gallery

logger = logging.getLogger(__name__)


def open_or_refresh(
    source: GallerySource,
    index: Path | None,
    below: Path,
    encoder: TrainedEncoder,
    *,
    batch_size: int,
    kind: Kind = "auto",
    workers: int | None = None,
) -> tuple[Gallery, Path]:
    """The gallery that a user means, up to date, and the folder of its index.

    Args:
        source: The images; or the folder of an index, which is then brought up to date, if its images are still there.
        index: Where the index lies or will; None takes a folder of its own.
        below: Where that folder then lies.
        encoder: What embeds.
        batch_size: As for `refresh_gallery`, like the others.
        kind: Likewise.
        workers: Likewise.

    Raises:
        DataError: As for `refresh_gallery`; or the index is of another modality.
        CheckpointError: Likewise.
    """
    folder = index or source.index_folder(below, encoder.digest)
    if is_index(source.path):
        folder, source = source.path, _recorded(source.path, source.modality)
        if not source.path.exists():
            logger.warning("%s is gone: its index is searched as it stands", source.path)
            return open_gallery(folder, encoder.digest), folder
    gallery, refreshed = refresh_gallery(folder, encoder, source, batch_size=batch_size, kind=kind, workers=workers)
    logger.info("%s: %s", folder, refreshed)
    return gallery, folder


def _recorded(path: Path, modality: Modality) -> GallerySource:
    record = read_record(path)
    root = record["source_root"]
    found = GallerySource(
        Path(record["source"]),
        Modality(record["modality"]),
        tuple(record["splits"]),
        None if root is None else Path(root),
    )
    if found.modality is not modality:
        raise DataError(
            f"{path} holds {found.modality} images, and {modality} ones are to be searched",
            hint="choose the other --direction, or another gallery",
        )
    return found
