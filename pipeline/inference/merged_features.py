"""`vireid embed-merge`: the feature files of all shards in one, as if the images had been embedded at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from models.file_kinds import PARQUET, what_is
from pipeline.captioning.files import differences
from pipeline.errors import DataError
from pipeline.evaluation.feature_files import read_record, write_feature_file
from pipeline.inference.embedded_files import Written, expect_feature_name
from pipeline.runtime.arrays import Array, read_arrays
from pipeline.runtime.atomic_files import checked
from pipeline.runtime.outputs import FEATURES, check_file
from pipeline.runtime.parquet_files import parquet_blocks, read_parquet
from pipeline.runtime.shards import Shard

_DECIDING = ("encoder", "reading", "root", "listed")
"""The parts of a record that are equal in all shards."""
_COLUMNS = ("features", "paths", "modalities", "cameras", "person_ids")
_HINT = "merge files that `vireid embed --shard` wrote"
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Listed:
    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Record:
    """The parts of a record that are read back."""

    encoder: str
    root: str
    reading: dict[str, Any]
    listed: _Listed
    shard: str
    unreadable: int


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    record: dict[str, Any]
    shard: Shard
    rows: int
    columns: tuple[str, ...]
    unreadable: int
    listed: int


def merge_features(out: Path, parts: Sequence[Path]) -> Written:
    """Merge the feature files of all shards, archives or Parquet tables, in the order of the list of images.

    The result has the rows and values of a file that was embedded at once.

    Raises:
        ConfigError: The name of `out` ends in neither `.npz` nor `.parquet`, or it is one of the parts.
        DataError: A part is no shard, of another encoder, reading or image list, missing, doubled or incomplete.
        CheckpointError: `out` cannot be written.

    Cost: one part in memory, of Parquet 8,192 rows; for an archive all vectors too.
    """
    expect_feature_name(out)
    check_file(out, FEATURES, "OUT", parts)
    read = sorted((_read_part(path) for path in parts), key=lambda part: part.shard.number)
    first = read[0]
    for part in read[1:]:
        apart = differences(first.record, part.record, _DECIDING)
        if apart:
            raise DataError(
                f"{part.path} and {first.path} were made from different inputs: {'; '.join(apart)}",
                hint="embed one of them again with the run, images and options of the other",
            )
    _refuse_gaps(read)
    common = tuple(name for name in _COLUMNS if all(name in part.columns for part in read))
    unreadable = sum(part.unreadable for part in read)
    rows = sum(part.rows for part in read)
    record = {**first.record, "shard": None, "unreadable": unreadable, "merged_from": len(read)}
    blocks = _Blocks(read, common)
    write_feature_file(out, blocks, rows=rows, record=record, option="OUT")
    return Written(rows, blocks.dim, unreadable, "person_ids" in common, str(first.record["encoder"]))


class _Blocks:
    """The rows of all parts, in order; `dim` is known once the first block was read."""

    def __init__(self, parts: Sequence[_Part], columns: Sequence[str]) -> None:
        self._parts, self._columns = parts, columns
        self.dim = 0

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for part in self._parts:
            for block in _blocks_of(part.path, self._columns):
                if block["features"].ndim != 2 or len({len(array) for array in block.values()}) > 1:
                    raise DataError(f"{part.path} is damaged: its arrays differ in length", hint=_HINT)
                dim = block["features"].shape[1]
                self.dim = self.dim or dim
                if dim != self.dim:
                    raise DataError(f"{part.path} has {dim:,} dimensions, other shards {self.dim:,}", hint=_HINT)
                yield block


def _blocks_of(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Array]]:
    if _is_parquet(path):
        yield from parquet_blocks(path, columns, _HINT)
    else:
        yield read_arrays(path, columns, _HINT)[0]


def _is_parquet(path: Path) -> bool:
    return what_is(path).name == PARQUET


def _read_part(path: Path) -> _Part:
    read = read_parquet if _is_parquet(path) else read_arrays
    arrays, found = read(path, ("paths",), _HINT)
    record = read_record(path)
    if record.get("shard") is None or not {"paths", "features"} <= {*found}:
        raise DataError(f"{path} is no shard: nothing records its part of a list of images", hint=_HINT)
    known = checked(_Record, record, path, _HINT)
    shard = Shard.parse(known.shard)
    return _Part(path, record, shard, len(arrays["paths"]), tuple(found), known.unreadable, known.listed.count)


def _refuse_gaps(parts: Sequence[_Part]) -> None:
    """Refuse parts of several divisions, a part that is missing, given twice or incomplete; `parts` are sorted."""
    counts = sorted({part.shard.count for part in parts})
    if len(counts) > 1:
        raise DataError(
            f"the shards are parts of {' and of '.join(map(str, counts))}", hint="merge shards of one division"
        )
    for part, after in pairwise(parts):
        if part.shard == after.shard:
            raise DataError(
                f"{part.path} and {after.path} are both shard {part.shard}", hint="pass the file of every shard once"
            )
    numbers = {part.shard.number for part in parts}
    absent = list(islice((str(number) for number in range(1, counts[0] + 1) if number not in numbers), _SHOWN))
    if absent:
        raise DataError(f"shard {', '.join(absent)} is missing", hint="pass the file of every shard")
    for part in parts:
        expected = len(part.shard.rows_of(part.listed))
        if part.rows + part.unreadable != expected:
            raise DataError(
                f"{part.path} has {part.rows + part.unreadable:,} of the {expected:,} images of its shard",
                hint="embed this shard again",
            )
