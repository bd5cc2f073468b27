"""`vireid embed`: the vectors of a list of images, or of a shard of it, in a file that other commands read."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from models.modality import Modality
from pipeline.data.image_list import ImageList
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.feature_files import PARQUET_SUFFIX, read_record, write_feature_file
from pipeline.inference.embedding import Embedded, are_parts, embed_images, forget_parts, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.runtime.outputs import FEATURES, VECTORS, check_file, is_special
from pipeline.runtime.parquet_files import Columns
from pipeline.runtime.shards import Shard
from pipeline.runtime.table_files import TableFiles

logger = logging.getLogger(__name__)

_SUFFIXES = (".npz", PARQUET_SUFFIX)


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


def vector_columns(embedded: Embedded, images: ImageList, encoder: str) -> Columns:
    """A row an image: `encoder`, `path`, `modality`, `camera`, `person`, `track`, `time` and `vector`."""
    listed = images.only(embedded.rows)
    rows = listed.listed()
    return {
        "encoder": [encoder] * len(rows),
        "path": [row.path for row in rows],
        "modality": ["infrared" if infrared else "visible" for infrared in listed.infrared],
        **{name: [getattr(row, name) for row in rows] for name in ("camera", "person", "track", "time")},
        "vector": embedded.vectors,
    }


def embed_to_file(
    encoder: TrainedEncoder,
    images: ImageList,
    out: Path,
    *,
    batch_size: int,
    workers: int | None = None,
    tables: TableFiles | None = None,
    shard: Shard | None = None,
) -> Written:
    """Write `features`, `paths` from the folder `root`, `modalities`, `encoder`; of manifests, people and cameras.

    A name that ends in `.parquet` makes it a Parquet table. The same vectors go into `tables`. A killed call resumes
    when repeated; until then its chunks are beside `out`, which is replaced at the end.

    * `shard`: A part of the images: consecutive ones, visible before infrared, as in the file of all.

    Raises:
        ConfigError: The file's name ends in neither `.npz` nor `.parquet`; the shard is empty.
        DataError: No image can be read.
        CheckpointError: The file cannot be written.
    """
    check_file(out, FEATURES, "--out")
    parts = None if is_special(out) else out.with_name(f"{out.name}.parts")
    if parts is not None:
        expect_feature_name(out)
    if parts is not None and parts.exists() and not are_parts(parts):
        raise ConfigError(f"{parts} exists, and is needed for unfinished vectors", hint="name another file with --out")
    record = record_of(encoder, images, shard)
    images = part_of(images, shard)
    embedded = require_some(embed_images(encoder, images, batch_size=batch_size, parts=parts, workers=workers))
    readable = images.only(embedded.rows)
    columns: dict[str, Shaped[np.ndarray, " n *rest"]] = {
        "features": embedded.vectors,
        "paths": np.array(readable.paths),
        "modalities": np.where(readable.infrared, str(Modality.INFRARED), str(Modality.VISIBLE)),
    }
    known = readable.known
    if known is not None:
        columns["cameras"] = np.array([known.camera_numbers[name] for name in known.cameras], dtype=np.int64)
        if all(known.people):
            columns["person_ids"] = np.array([known.person_numbers[name] for name in known.people], dtype=np.int64)
    record["unreadable"] = len(embedded.unreadable)
    write_feature_file(out, [columns], rows=len(readable), record=record, option="--out")
    if tables is not None:
        tables.write(VECTORS, vector_columns(embedded, images, encoder.digest))
    if parts is not None:
        forget_parts(parts)
    return Written(
        len(embedded.rows), embedded.vectors.shape[1], len(embedded.unreadable), "person_ids" in columns, encoder.digest
    )


def expect_feature_name(out: Path) -> None:
    """ConfigError if a file's name is not that of features."""
    if out.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{out}: vectors are written as a .npz archive or a .parquet table",
            hint=f"choose a name that ends in {' or '.join(_SUFFIXES)}",
        )


def record_of(encoder: TrainedEncoder, images: ImageList, shard: Shard | None) -> dict[str, Any]:
    """What a feature file records of its vectors, before any is computed.

    `listed` is the list of all images, those of the other shards included: its length, and a digest of paths and
    modalities in the order of the file.
    """
    rows = _file_order(images)
    names = "".join(f"{images.paths[row]} {images.infrared[row]:d}\n" for row in rows)
    digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    return {
        "encoder": encoder.digest,
        "root": str(images.root.resolve()),
        "modalities": [str(modality) for modality in Modality if len(images.of(modality))],
        "reading": encoder.reading.to_dict(),
        "listed": {"count": len(images), "digest": f"sha256:{digest}"},
        "shard": None if shard is None else str(shard),
    }


def shard_file(out: Path, shard: Shard) -> Path:
    """The file of a shard beside the file of all: `people.shard-3-of-16.npz` for `people.npz`."""
    return out.with_name(f"{shard.name_for(out.stem)}{out.suffix}")


def embed_shard_once(
    encoder: TrainedEncoder, images: ImageList, out: Path, shard: Shard, *, batch_size: int, workers: int | None = None
) -> Path:
    """Write the file of a shard, unless it has these vectors already; return its path. Raises as `embed_to_file`."""
    file = shard_file(out, shard)
    if _has_vectors(file, record_of(encoder, images, shard)):
        logger.info("%s is there already", file)
    else:
        embed_to_file(encoder, images, file, batch_size=batch_size, workers=workers, shard=shard)
    return file


def _has_vectors(file: Path, record: Mapping[str, Any]) -> bool:
    if not file.exists():
        return False
    try:
        return record.items() <= read_record(file).items()
    except DataError:
        return False


def part_of(images: ImageList, shard: Shard | None) -> ImageList:
    """The images of a shard; all without one.

    Raises:
        ConfigError: There are fewer images than shards, and this one has none.
    """
    if shard is None:
        return images
    places = shard.rows_of(len(images))
    rows = _file_order(images)[places.start : places.stop]
    if not len(rows):
        raise ConfigError(
            f"shard {shard} of {len(images):,} images is empty", hint=f"divide them into at most {len(images):,} shards"
        )
    return images.only(rows)


def _file_order(images: ImageList) -> Int64[np.ndarray, " n"]:
    """The rows of all images, visible ones first."""
    return np.concatenate([images.of(modality) for modality in Modality])
