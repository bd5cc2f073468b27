"""A gallery in Milvus that answers many queries, as `ServedGallery` does for an index folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import DataError
from pipeline.inference.calibration import Calibrations
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.filters import Filters
from pipeline.inference.gallery_images import Kind
from pipeline.inference.groups import SINGLE, Grouping, entry_of
from pipeline.inference.index import INDEXES, GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.milvus_calibration import calibrations_of
from pipeline.inference.milvus_gallery import MilvusGallery, refuse_groups
from pipeline.inference.served_gallery import (
    Query,
    RankedImage,
    ServedGallery,
    calibration_of,
    in_order,
    least_score,
    picture_of,
    require_cameras,
    shown,
)


@dataclass(frozen=True, slots=True, eq=False)
class ServedMilvus:
    """A gallery in Milvus, which filters by itself, how the images of a query are grouped, and what scores mean."""

    gallery: MilvusGallery
    grouping: Grouping
    calibrations: Calibrations = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The address of the collection."""
        return str(self.gallery.store.address)

    @property
    def cameras(self) -> Mapping[str, int]:
        """Number of images of each known camera at the last refresh, sorted as numbers, then as names."""
        return in_order(self.gallery.record.cameras)

    @property
    def span(self) -> tuple[str, str] | None:
        """The first and the last known time, ISO 8601 in UTC without its mark; None where none is known."""
        return self.gallery.record.span

    def calibration(self, images: int) -> FalseMatch | None:
        """What scores of a query of so many images mean; None where it is not known."""
        return calibration_of(self.calibrations, self.grouping, images)

    def holds(self, row: int) -> bool:
        """Whether a row can have an image; `picture` looks it up."""
        return row > 0

    def find(self, query: Query, k: int, filters: Filters, false_match: float | None = None) -> tuple[RankedImage, ...]:
        """The k images most similar to a query, of those that fulfil the conditions; best first.

        With `false_match`, only those with a score that this share of strangers reaches.

        Raises:
            ConfigError: `false_match` without a calibration for such queries, or too small for it.
            DataError: The gallery has no such camera.
            CheckpointError: The database fails.
        """
        calibration = self.calibration(query.images)
        least = least_score(calibration, self.grouping, query.images, false_match)
        require_cameras(filters, self.cameras)
        hits, images = self.gallery.search(query.vector, k, filters)
        kept = hits.similarities[0] >= least
        scores = hits.similarities[0][kept]
        chances = [None] * len(scores) if calibration is None else (1 / calibration.rates(scores)).tolist()
        rows = hits.rows[0][kept].tolist()
        found = zip(rows, (images[row].file for row in rows), scores.tolist(), chances, strict=True)
        return tuple(
            RankedImage(row, rank, score, one_in, **asdict(entry_of(file)) | {"path": shown(file.path)})
            for rank, (row, file, score, one_in) in enumerate(found, start=1)
        )

    def picture(self, row: int, longest: int) -> bytes:
        """An image as JPEG, see `picture_of`; DataError if there is no such row."""
        file = self.gallery.file(row)
        if file is None:
            raise DataError(f"the gallery has no row {row}", hint="start `vireid serve` again")
        return picture_of(file, self.gallery, longest)


def open_served(
    source: GallerySource,
    index: Path | None,
    encoder: TrainedEncoder,
    grouping: Grouping = SINGLE,
    *,
    batch_size: int,
    kind: Kind = "auto",
    workers: int | None = None,
) -> ServedGallery | ServedMilvus:
    """Open or refresh the index of a gallery as `vireid search` does, with its calibrations; see `open_or_refresh`."""
    gallery, place = open_or_refresh(source, index, INDEXES, encoder, batch_size=batch_size, kind=kind, workers=workers)
    if isinstance(gallery, MilvusGallery):
        refuse_groups(grouping)
        return ServedMilvus(gallery, grouping, calibrations_of(gallery, place))
    assert isinstance(place, Path)
    return ServedGallery(gallery, place, grouping, calibrations_of(gallery, place))
