"""A gallery that answers many queries: uploaded images in, ranked images out, with filters and thumbnails."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from PIL import Image

from clustering.gallery_search import most_similar, most_similar_of
from models.modality import Modality
from pipeline.config.datasets import DIRECTIONS
from pipeline.data.image_files import FROM_ANYWHERE, Adjustment, count_pixels, decode_image, open_image, reason_of
from pipeline.data.image_list import ListedImage, is_manifest, list_images
from pipeline.data.values import moment
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.calibration import Calibrations
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.filters import Filters
from pipeline.inference.groups import SINGLE, Entries, Grouping, group_entries
from pipeline.inference.index import Gallery, IndexedFile, is_index, read_record
from pipeline.inference.milvus_address import address_of
from pipeline.inference.milvus_gallery import MilvusGallery, open_milvus
from pipeline.inference.searching import score_threshold

T = TypeVar("T")

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Upload:
    """An image file of a query: its name as given, and its bytes."""

    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the bytes."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query: its unit vector, its number of images, and the conversions that each of them needed."""

    vector: Float32[np.ndarray, "1 dim"]
    images: int
    adjustments: tuple[frozenset[Adjustment], ...] = ()


@dataclass(frozen=True, slots=True)
class RankedImage:
    """A `Hit` with its rank from 1, and the row in the index of the image, or of the central image of the group."""

    row: int
    rank: int
    score: float
    one_in: float | None
    path: str
    camera: str
    person: str
    track: str
    time: str
    group: str
    images: int


@dataclass(frozen=True, eq=False)
class ServedGallery:
    """A gallery, the folder of its index, how its images are grouped, and arrays for filters, which are made once.

    With a grouping, hits are groups, and the images of a query are one group as in `vireid search --group`. `mark` is
    the descriptor of `mark_served`.
    """

    gallery: Gallery
    folder: Path
    grouping: Grouping = SINGLE
    calibrations: Calibrations = field(default_factory=dict)
    mark: int | None = None

    @property
    def place(self) -> str:
        """The folder of the index."""
        return shown(str(self.folder.resolve()))

    @cached_property
    def entries(self) -> Entries:
        """What is found: images, or groups of them."""
        return group_entries(self.gallery.files, self.gallery.vectors, self.grouping.gallery, self.grouping.by)

    @cached_property
    def cameras(self) -> dict[str, int]:
        """Number of images of each known camera, sorted as numbers, then as names."""
        return in_order(Counter(file.camera for file in self.gallery.files if file.camera))

    @cached_property
    def _camera_numbers(self) -> Int64[np.ndarray, " n"]:
        numbers = {name: number for number, name in enumerate(self.cameras)}
        return np.array([numbers.get(file.camera, -1) for file in self.gallery.files], dtype=np.int64)

    @cached_property
    def _times(self) -> Shaped[np.ndarray, " n"]:
        """UTC; unknown times are NaT, which no comparison holds for."""
        return np.array([_utc(moment(file.time)) if file.time else "NaT" for file in self.gallery.files], "M8[us]")

    @property
    def span(self) -> tuple[str, str] | None:
        """The first and the last known time, ISO 8601 in UTC without its mark; None where none is known."""
        known = self._times[~np.isnat(self._times)]
        if not known.size:
            return None
        first, last = (str(np.datetime_as_string(one, unit="s")) for one in (known.min(), known.max()))
        return first, last

    def rows(self, filters: Filters) -> Int64[np.ndarray, " m"] | None:
        """The positions among `entries` of those of which an image fulfils all conditions; None without a condition.

        Raises:
            DataError: The gallery has no such camera.

        Cost: below a millisecond for 100,000 images.
        """
        if filters == Filters():
            return None
        chosen = np.ones(len(self.gallery.files), dtype=bool)
        if filters.cameras:
            positions = {name: number for number, name in enumerate(self.cameras)}
            require_cameras(filters, positions)
            chosen &= np.isin(self._camera_numbers, [positions[name] for name in filters.cameras])
        if filters.since is not None:
            chosen &= self._times >= np.datetime64(_utc(filters.since))
        if filters.until is not None:
            chosen &= self._times <= np.datetime64(_utc(filters.until))
        return np.flatnonzero(np.logical_or.reduceat(chosen[self.entries.rows], self.entries.starts[:-1]))

    def calibration(self, images: int) -> FalseMatch | None:
        """What scores of a query of so many images mean; None where it is not known."""
        return calibration_of(self.calibrations, self.grouping, images)

    def find(self, query: Query, k: int, filters: Filters, false_match: float | None = None) -> tuple[RankedImage, ...]:
        """The k images or groups most similar to a query, of those that fulfil the conditions; best first.

        With `false_match`, only those with a score that this share of strangers reaches.

        Raises:
            ConfigError: `false_match` without a calibration for such queries, or too small for it.
            DataError: The gallery has no such camera.
        """
        calibration = self.calibration(query.images)
        least = least_score(calibration, self.grouping, query.images, false_match)
        rows = self.rows(filters)
        if not self.grouping.gallery:
            hits = self.gallery.search(query.vector, k, rows)
        elif rows is None:
            hits = most_similar(query.vector, self.entries.vectors, k)
        else:
            hits = most_similar_of(query.vector, self.entries.vectors, rows, k)
        scores = hits.similarities[0]
        kept = scores >= least
        rates = None if calibration is None else calibration.rates(scores[kept])
        return tuple(
            self._ranked(int(row), rank, float(score), None if rates is None else 1 / float(rates[rank - 1]))
            for rank, (row, score) in enumerate(zip(hits.rows[0][kept], scores[kept], strict=True), start=1)
        )

    def _ranked(self, group: int, rank: int, score: float, one_in: float | None) -> RankedImage:
        entry = self.entries.entry(group)
        return RankedImage(
            row=int(self.entries.central[group]),
            rank=rank,
            score=score,
            one_in=one_in,
            **asdict(entry) | {"path": shown(entry.path), "group": shown(entry.group)},
        )

    def holds(self, row: int) -> bool:
        """Whether there is an image of a row."""
        return 0 <= row < len(self.gallery.files)

    def picture(self, row: int, longest: int) -> bytes:
        """An image as JPEG without metadata, at most `longest` pixels high or wide, turned as the index read it.

        Raises:
            DataError: There is no such row, or its file is missing, unreadable, or another one than was indexed.

        Cost: one decoding.
        """
        if not self.holds(row):
            raise DataError(f"the gallery has no row {row}", hint=f"rows are 0 to {len(self.gallery.files) - 1}")
        return picture_of(self.gallery.files[row], self.gallery, longest)


def calibration_of(calibrations: Calibrations, grouping: Grouping, images: int) -> FalseMatch | None:
    """What scores of a query of so many images mean; several images are a group, which `SINGLE` does not calibrate."""
    return None if images > 1 and grouping == SINGLE else calibrations.get(grouping)


def least_score(calibration: FalseMatch | None, grouping: Grouping, images: int, false_match: float | None) -> float:
    """The score from which on something counts as found by a query of so many images; see `score_threshold`."""
    if false_match is None:
        return -np.inf
    named = Grouping("several images") if images > 1 and grouping == SINGLE else grouping
    return score_threshold(calibration, named, false_match)


def in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """Cameras sorted as numbers, then as names."""
    return dict(sorted(counts.items(), key=lambda one: (not one[0].isdecimal(), one[0].zfill(20))))


def require_cameras(filters: Filters, cameras: Mapping[str, int]) -> None:
    """DataError if a gallery has not all the cameras of a filter."""
    unknown = [name for name in filters.cameras if name not in cameras]
    if unknown:
        known = ", ".join(list(cameras)[:10]) or "none is known"
        raise DataError(f"the gallery has no camera {unknown[0]!r}", hint=f"its cameras: {known}")


def picture_of(file: IndexedFile, gallery: Gallery | MilvusGallery, longest: int) -> bytes:
    """An image as JPEG without metadata, at most `longest` pixels high or wide, turned as the gallery read it.

    Raises:
        DataError: Its file is missing, unreadable, or another one than was indexed.

    Cost: one decoding.
    """
    path = gallery.root / file.path
    try:
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) != (file.size, file.changed):
            raise DataError(f"{file.path} has changed since it was indexed", hint="start `vireid serve` again")
        image = open_image(path, gallery.reading or FROM_ANYWHERE, (longest, longest)).image
    except (OSError, ValueError) as error:
        raise DataError(f"{file.path}: {reason_of(error)}", hint="start `vireid serve` again") from error
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def read_query(
    encoder: TrainedEncoder,
    uploads: Sequence[Upload],
    modality: Modality,
    grouping: Grouping = SINGLE,
    most_pixels: int | None = None,
) -> Query:
    """A query of one image, or of several as one group.

    Raises:
        DataError: A file cannot be read as an image, named with the reason; the images have more than `most_pixels`
            together, of which none is then decoded.
        TrainingError: See `TrainedEncoder.encode`.
    """
    sizes = [_of_upload(upload, count_pixels) for upload in uploads]
    if most_pixels is not None and sum(sizes) > most_pixels:
        counted = "the images have" if len(uploads) > 1 else f"{uploads[0].name} has"
        raise DataError(
            f"{counted} {sum(sizes):,} pixels" + " together" * (len(uploads) > 1) + f", more than {most_pixels:,}",
            hint="send fewer or smaller images, or start `vireid serve` with a larger --most-megapixels",
        )
    decoded = [
        _of_upload(upload, lambda content: decode_image(content, encoder.height, encoder.width, encoder.reading))
        for upload in uploads
    ]
    vectors = unit_rows(encoder.encode(np.stack([one.pixels for one in decoded]), modality), "queries")
    vectors = vectors.astype(np.float32)
    if len(uploads) > 1 or grouping.query:
        files = [ListedImage(upload.name, track="query") for upload in uploads]
        vectors = group_entries(files, vectors, "track", grouping.by).vectors
    return Query(vectors, len(uploads), tuple(one.adjustments for one in decoded))


def _of_upload(upload: Upload, read: Callable[[bytes], T]) -> T:
    """What a function reads from an image; DataError with its name and the reason."""
    try:
        return read(upload.content)
    except (OSError, ValueError) as error:
        raise DataError(f"{upload.name}: {reason_of(error)}", hint="choose image files") from error


def shown(path: str) -> str:
    """A path as text: its undecodable bytes as escapes, as the feedback file has them."""
    return path.encode(errors="backslashreplace").decode()


def served_queries(
    source: Path, direction: str | None, splits: Sequence[str] = (), root: Path | None = None
) -> tuple[Modality, ...]:
    """The modalities of the queries of a gallery: that of the direction; or those that the gallery itself determines.

    An index names the modality of its images, and a manifest that of each; then queries are of the other modality, or
    of both.

    Raises:
        ConfigError: Neither a direction nor the gallery names a modality.
        DataError: See `list_images`, and `open_milvus` for an address.
    """
    if direction is not None:
        return (Modality(direction.partition("_to_")[0]),)
    address = address_of(source)
    if address is not None:
        return (open_milvus(address, None).modality.other,)
    if is_index(source):
        return (read_record(source).modality.other,)
    if not is_manifest(source):
        raise ConfigError(
            f"the images of {source} may be visible or infrared", hint=f"give --direction {' or '.join(DIRECTIONS)}"
        )
    images = list_images(source, None, splits, root)
    return tuple(modality.other for modality in Modality if len(images.of(modality)))


def _utc(time: datetime) -> datetime:
    """Without its time zone, as NumPy takes it."""
    return time.replace(tzinfo=None)
