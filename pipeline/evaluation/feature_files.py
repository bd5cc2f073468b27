"""Feature files: `.npz` archives or Parquet tables of plain arrays that any program can write; nothing is unpickled."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from models.file_kinds import NPY, PARQUET, what_is
from models.modality import Modality, PerModality
from pipeline.data.truth import SplitTables
from pipeline.errors import DataError
from pipeline.evaluation.evaluate import Features, SearchResult
from pipeline.runtime.arrays import Array, check_memory, read_array, read_arrays
from pipeline.runtime.outputs import FEATURES, FEATURES_MARK, QUERIES, OutputKind, write_output
from pipeline.runtime.parquet_files import joined_blocks, opened_parquet, read_parquet, write_parquet

_NEEDED = ("features", "person_ids")
_ARRAYS = ("features", "person_ids", "cameras", "modalities", "paths")
RECORD = "record"
"""The array of an archive that has the record of its features, as JSON."""
PARQUET_SUFFIX = ".parquet"
_TABLE_HINT = (
    "the file holds one array [n, d] of float16, float32 or float64, as `numpy.save` writes it, or is a .npz archive "
    "or a Parquet table with such an array `features`, as `vireid embed` writes it"
)
_HINT = (
    "the file needs `features` [n, d] of float16, float32 or float64, `person_ids` [n] of integers, and if the "
    "protocol needs them `cameras` [n] of integers, `modalities` [n] (visible or infrared, as strings), `paths` [n]"
)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """Content of a feature file, one entry per image; None for absent arrays. Float64 vectors keep their precision."""

    vectors: Float[np.ndarray, "n d"]
    people: Int64[np.ndarray, " n"]
    cameras: Int64[np.ndarray, " n"] | None
    infrared: Bool[np.ndarray, " n"] | None
    paths: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.vectors)


def read_features(path: Path) -> ImageFeatures:
    """Read `features`, `person_ids`, and optionally `cameras`, `modalities` and `paths`: an archive or a Parquet table.

    Raises:
        DataError: The file is missing or damaged, an array is missing or of another type, lengths differ, an identity
            is negative, a modality is unknown, or a path occurs twice.

    Cost: float16 is widened to float32; bytes in another order and columns before rows are copied.
    """
    arrays = _read_arrays(path)
    vectors = _vectors(f"{path}: `features` is", arrays["features"], _HINT)
    people = arrays["person_ids"]
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
    """Read only the features: those of a feature file, or a `.npy` file, by content and not by ending.

    Raises:
        DataError: As `read_features`.

    Cost: none for a `.npy` file of float32 or float64 by rows, which is mapped; the features once otherwise.
    """
    if what_is(path).name == NPY:
        return _vectors(f"{path} holds", np.asarray(read_array(path, _TABLE_HINT, mapped=True)), _TABLE_HINT)
    return _vectors(f"{path}: `features` is", _read_arrays(path, ("features",), _TABLE_HINT)["features"], _TABLE_HINT)


def read_image_vectors(path: Path) -> tuple[Float[np.ndarray, "n d"], tuple[str, ...], Bool[np.ndarray, " n"]]:
    """Read `features`, `paths`, and from `modalities` whether each image is infrared. Raises as `read_features`."""
    arrays = _read_arrays(path, ("features", "paths", "modalities"))
    if len({array.shape[:1] for array in arrays.values()}) > 1:
        raise DataError(f"{path} is damaged: its arrays differ in length", hint=_HINT)
    vectors = _vectors(f"{path}: `features` is", arrays["features"], _HINT)
    return vectors, _paths(path, arrays["paths"]), _infrared(path, arrays["modalities"])


def write_features(path: Path, features: PerModality[Features], tables: SplitTables) -> Path:
    """Write the features of a split for `read_features`, visible images first; atomic."""
    images, people = tables.images, tables.people
    columns: dict[str, Shaped[np.ndarray, " n *rest"]] = {
        "features": np.concatenate([bank.vectors for bank in features]),
        "person_ids": np.concatenate([truth.ids for truth in people]),
        "cameras": np.concatenate([table.cameras for table in images]),
        "modalities": np.array([str(table.modality) for table in images for _ in range(len(table))]),
        "paths": np.array([one for table in images for one in table.paths]),
    }
    return write_feature_file(path, [columns], rows=len(columns["paths"]), record={}, option="--features")


def write_queries(path: Path, results: Sequence[SearchResult]) -> Path:
    """Write the results of each query, for error analysis and figures; atomic.

    For every trial, under its name, such as `sysu/all/1-shot/agw/trial-0/rank`: `query` (row of the test table of the
    query modality, or of the feature file), `rank`, `average_precision`, `inverse_negative_penalty`, `valid`, and
    `best` (rows of the ten gallery images ranked first, without excluded ones; -1 where there are fewer).
    """
    columns: dict[str, Shaped[np.ndarray, " n *rest"]] = {}
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


def write_feature_file(
    path: Path, blocks: Iterable[Mapping[str, Array]], *, rows: int, record: Mapping[str, Any], option: str
) -> Path:
    """Write features in blocks of rows, as an archive or, if the name ends in `.parquet`, as a Parquet table; atomic.

    `record` describes them, with their `encoder` and the `root` of their paths. Raises as `write_output`.

    Cost: a block in memory for Parquet; all features once for an archive of several blocks.
    """
    text = json.dumps(record)
    if path.suffix == PARQUET_SUFFIX:
        metadata = {FEATURES_MARK: text.encode()}
        write_output(path, lambda file: write_parquet(file, blocks, metadata), FEATURES, option)
        return path
    known = {name: np.array(str(record[name])) for name in ("encoder", "root") if name in record}
    columns = joined_blocks(blocks, rows) | known | {RECORD: np.array(text)}
    return write_columns(path, columns, FEATURES, option)


def read_record(path: Path) -> dict[str, Any]:
    """What an archive or a Parquet table has recorded of its features; empty for those of other programs.

    Raises:
        DataError: As `read_features`.
    """
    text: str | bytes
    if what_is(path).name == PARQUET:
        with opened_parquet(path, _HINT) as file:
            text = (file.schema_arrow.metadata or {}).get(FEATURES_MARK, b"{}")
    else:
        text = str(read_arrays(path, (RECORD,), _HINT)[0].get(RECORD, "{}"))
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DataError(f"{path} is damaged: its record is no JSON object", hint=_HINT)
    return record


def write_columns(path: Path, columns: Mapping[str, Any], kind: OutputKind, option: str) -> Path:
    """Write named arrays. Raises as `write_output`."""

    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, allow_pickle=False, **columns)

    write_output(path, write, kind, option, archive=True)
    return path


def _vectors(what: str, found: Array, hint: str) -> Float[np.ndarray, "n d"]:
    """Rows in memory order, of this machine's byte order."""
    if found.dtype.kind != "f" or found.dtype.itemsize > 8 or found.ndim != 2 or found.size == 0:
        raise DataError(f"{what} {found.dtype} {list(found.shape)}, not a table of floating-point numbers", hint)
    dtype = np.dtype(np.float64 if found.dtype.itemsize == 8 else np.float32)
    if found.dtype != dtype or not found.flags.c_contiguous:
        try:
            check_memory(found.size * dtype.itemsize)
        except ValueError as error:
            raise DataError(f"{what} {found.dtype} {list(found.shape)}, whose copy {error}", hint) from error
    vectors: Float[np.ndarray, "n d"] = np.ascontiguousarray(found, dtype=dtype)
    return vectors


def _read_arrays(path: Path, needed: tuple[str, ...] = _NEEDED, hint: str = _HINT) -> dict[str, Array]:
    """The known arrays; others are ignored."""
    read = read_parquet if what_is(path).name == PARQUET else read_arrays
    arrays, found = read(path, _ARRAYS if needed == _NEEDED else needed, hint)
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}; found: {', '.join(found) or 'none'}", hint=hint)
    return arrays


def _people(path: Path, values: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Negative numbers are refused: -1 usually marks unknown people, who would count as one person."""
    people = _integers(path, "person_ids", values)
    if people.min() < 0:
        row = int(np.argmin(people >= 0))
        raise DataError(
            f"{path}: `person_ids` row {row} is {values[row]}, and people are numbered from 0",
            hint="remove images of unknown people: they would count as one person",
        )
    return people


def _integers(path: Path, name: str, values: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{path}: `{name}` is {values.dtype}, not integers", hint=_HINT)
    return values.astype(np.int64)


def _infrared(path: Path, values: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    values = _strings(path, "modalities", values)
    known = np.isin(values, [str(modality) for modality in Modality])
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(f"{path}: `modalities` row {row} is {str(values[row])!r}, not visible or infrared", hint=_HINT)
    infrared: Bool[np.ndarray, " n"] = values == str(Modality.INFRARED)
    return infrared


def _strings(path: Path, name: str, values: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Strings; those of other programs may be bytes."""
    if values.dtype.kind not in "SU":
        raise DataError(f"{path}: `{name}` is {values.dtype}, not strings", hint=_HINT)
    try:
        return (
            np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(f"=U{values.itemsize // 4}")
        )
    except ValueError as error:
        raise DataError(f"{path}: `{name}` holds bytes that are not UTF-8", hint=_HINT) from error


def _paths(path: Path, values: Shaped[np.ndarray, " n"]) -> tuple[str, ...]:
    paths = tuple(_strings(path, "paths", values).tolist())
    (most_frequent, times), *_ = Counter(paths).most_common(1)
    if times > 1:
        raise DataError(f"{path}: `paths` names {most_frequent} {times} times", hint="each image may have one row")
    return paths
