"""Feature files: `.npz` archives of plain arrays that any program can write; nothing is unpickled."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from models.modality import Modality, PerModality
from pipeline.data.truth import SplitTables
from pipeline.errors import DataError
from pipeline.evaluation.evaluate import Features, SearchResult
from pipeline.runtime.outputs import FEATURES, QUERIES, OutputKind, write_output

_NEEDED = ("features", "person_ids")
_ARRAYS = ("features", "person_ids", "cameras", "modalities", "paths")
_HINT = (
    "the file needs `features` [n, d] of float16, float32 or float64, `person_ids` [n] of integers, and if the "
    "protocol needs them `cameras` [n] of integers, `modalities` [n] (visible or infrared, as strings), `paths` [n]"
)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """Content of a feature file, one entry per image; None for absent arrays. Float64 vectors keep their precision."""

    vectors: Float[np.ndarray, "n d"]
    people: Int64[np.ndarray, "n"]
    cameras: Int64[np.ndarray, "n"] | None
    infrared: Bool[np.ndarray, "n"] | None
    paths: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.vectors)


def read_features(path: Path) -> ImageFeatures:
    """Read a `.npz` archive with `features`, `person_ids`, and optionally `cameras`, `modalities` and `paths`.

    Raises:
        DataError: The file is missing or damaged, an array is missing or of another type, lengths differ, an identity
            is negative, a modality is unknown, or a path occurs twice.

    Cost: reads the file twice, once for its checksums; float16 is widened to float32.
    """
    arrays = _read_arrays(path)
    vectors, people = _vectors(path, arrays["features"]), arrays["person_ids"]
    for name, array in arrays.items():
        if name != "features" and array.shape != (len(vectors),):
            raise DataError(f"{path}: `{name}` is {list(array.shape)} for {len(vectors):,} features", hint=_HINT)
    cameras, modalities, paths = arrays.get("cameras"), arrays.get("modalities"), arrays.get("paths")
    return ImageFeatures(
        vectors=vectors,
        people=_people(path, people),
        cameras=None if cameras is None else _integers(path, "cameras", cameras),
        infrared=None if modalities is None else _infrared(path, modalities),
        paths=None if paths is None else _paths(path, paths),
    )


def read_vectors(path: Path) -> Float[np.ndarray, "n d"]:
    """Read only the features of a feature file. Raises as `read_features`."""
    return _vectors(path, _read_arrays(path, ("features",))["features"])


def write_features(path: Path, features: PerModality[Features], tables: SplitTables) -> Path:
    """Write the features of a split for `read_features`, visible images first; atomic."""
    images, people = tables.images, tables.people
    columns: dict[str, Shaped[np.ndarray, "n *rest"]] = {
        "features": np.concatenate([bank.vectors for bank in features]),
        "person_ids": np.concatenate([truth.ids for truth in people]),
        "cameras": np.concatenate([table.cameras for table in images]),
        "modalities": np.array([str(table.modality) for table in images for _ in range(len(table))]),
        "paths": np.array([one for table in images for one in table.paths]),
    }
    return write_columns(path, columns, FEATURES, "--features")


def write_queries(path: Path, results: Sequence[SearchResult]) -> Path:
    """Write the results of each query, for error analysis and figures; atomic.

    For every trial, under its name, such as `sysu/all/1-shot/agw/trial-0/rank`: `query` (row of the test table of the
    query modality, or of the feature file), `rank`, `average_precision`, `inverse_negative_penalty`, `valid`, and
    `best` (rows of the ten gallery images ranked first, without excluded ones; -1 where there are fewer).
    """
    columns: dict[str, Shaped[np.ndarray, "n *rest"]] = {}
    for result in results:
        for one in result.queries:
            name = f"{result.report.name}/trial-{one.trial.number}"
            columns |= {
                f"{name}/query": one.trial.query,
                f"{name}/rank": one.ranks.rank,
                f"{name}/average_precision": one.ranks.average_precision,
                f"{name}/inverse_negative_penalty": one.ranks.inverse_negative_penalty,
                f"{name}/valid": one.ranks.valid,
                f"{name}/best": one.best,
            }
    return write_columns(path, columns, QUERIES, "--per-query")


def write_columns(path: Path, columns: Mapping[str, Any], kind: OutputKind, option: str) -> Path:
    """Write named arrays. Raises as `write_output`."""

    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, allow_pickle=False, **columns)

    write_output(path, write, kind, option, archive=True)
    return path


def _vectors(path: Path, found: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "n d"]:
    if found.dtype.kind != "f" or found.dtype.itemsize > 8 or found.ndim != 2 or found.size == 0:
        raise DataError(
            f"{path}: `features` is {found.dtype} {list(found.shape)}, not a table of floating-point numbers", _HINT
        )
    vectors: Float[np.ndarray, "n d"] = found.astype(
        np.float64 if found.dtype.itemsize == 8 else np.float32, copy=False
    )
    return vectors


def _read_arrays(path: Path, needed: tuple[str, ...] = _NEEDED) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The known arrays; others are ignored."""
    if not path.is_file():
        raise DataError(f"there is no file {path}", hint=_HINT)
    _check_archive(path)
    place, arrays = str(path), dict[str, Shaped[np.ndarray, "..."]]()
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = list(archive.files)
            for name in _ARRAYS:
                place = f"{path}: `{name}`"
                if name in found:
                    arrays[name] = archive[name]
    except ValueError as error:
        # An array of objects would have to be unpickled, which runs code.
        raise DataError(f"{place} holds no plain numbers or strings: {error}", hint=_HINT) from error
    wanted = {*needed, *arrays}
    missing = [name for name in _ARRAYS if name in wanted and not isinstance(arrays.get(name), np.ndarray)]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}; found: {', '.join(found) or 'none'}", hint=_HINT)
    return arrays


def _check_archive(path: Path) -> None:
    """Verify all checksums first, because arrays of damaged bytes fail in many ways."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz archive, or its end is missing", hint=_HINT)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        damaged = str(error)
    if damaged is not None:
        raise DataError(f"{path} is damaged: {damaged}", hint="write it again, or restore it from a copy")


def _people(path: Path, values: Shaped[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Negative numbers are refused: -1 usually marks unknown people, who would count as one person."""
    people = _integers(path, "person_ids", values)
    if people.min() < 0:
        row = int(np.argmin(people >= 0))
        raise DataError(
            f"{path}: `person_ids` row {row} is {values[row]}, and people are numbered from 0",
            hint="remove images of unknown people: they would count as one person",
        )
    return people


def _integers(path: Path, name: str, values: Shaped[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{path}: `{name}` is {values.dtype}, not integers", hint=_HINT)
    return values.astype(np.int64)


def _infrared(path: Path, values: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    known = np.isin(values, [str(modality) for modality in Modality])
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(f"{path}: `modalities` row {row} is {str(values[row])!r}, not visible or infrared", hint=_HINT)
    infrared: Bool[np.ndarray, "n"] = values == str(Modality.INFRARED)
    return infrared


def _paths(path: Path, values: Shaped[np.ndarray, "n"]) -> tuple[str, ...]:
    if values.dtype.kind != "U":
        raise DataError(f"{path}: `paths` is {values.dtype}, not strings", hint=_HINT)
    paths = tuple(values.tolist())
    (most_frequent, times), *_ = Counter(paths).most_common(1)
    if times > 1:
        raise DataError(f"{path}: `paths` names {most_frequent} {times} times", hint="each image may have one row")
    return paths
