"""Parquet files: written and read in groups of rows, so that a file needs no second copy of its vectors in memory."""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from models.file_kinds import PARQUET
from pipeline.errors import ConfigError, DataError
from pipeline.runtime.arrays import Array, check_memory, require_kind

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Values by column; an array of two dimensions has a vector a row, and so has a list of arrays, or None for none."""

GROUP_ROWS = 8_192
"""Rows of a group: 67 MB of vectors at 2,048 dimensions."""


def write_parquet(file: BinaryIO, blocks: Iterable[Columns], metadata: Mapping[bytes, bytes]) -> None:
    """Write blocks of rows with the same columns, with checksums of pages.

    An array of two dimensions becomes a column of lists of fixed size, a list of vectors one of lists.

    Raises:
        ConfigError: pyarrow is missing.

    Cost: one block in memory, and its encoded pages.
    """
    pyarrow, parquet = pyarrow_modules()
    remaining = iter(blocks)
    first = _table(pyarrow, next(remaining)).replace_schema_metadata(metadata)
    words = [field.name for field in first.schema if not pyarrow.types.is_nested(field.type)]
    options = {"use_dictionary": words, "write_page_checksum": True}  # a dictionary of vectors would be a second copy
    with parquet.ParquetWriter(file, first.schema, **options) as writer:
        for table in chain([first], (_table(pyarrow, block).cast(first.schema) for block in remaining)):
            writer.write_table(table, row_group_size=GROUP_ROWS)


def read_parquet(path: Path, names: Sequence[str], hint: str) -> tuple[dict[str, Array], list[str]]:
    """Read those of the named columns that a file has, as arrays; and the names of all its columns.

    Raises:
        ConfigError: pyarrow is missing.
        DataError: The file is missing, damaged or something else, a row has no value, vectors differ in length, or the
            memory is too small; `hint` is its hint.
    """
    with opened_parquet(path, hint) as file:
        found, rows = list(file.schema_arrow.names), int(file.metadata.num_rows)
        wanted = [name for name in names if name in found]
        return joined_blocks(_blocks(file, wanted), rows) if wanted else {}, found


def column_names(path: Path) -> list[str]:
    """The names of the columns of a file; none if it is damaged. ConfigError if pyarrow is missing."""
    try:
        with opened_parquet(path, "") as file:
            return list(file.schema_arrow.names)
    except DataError:
        return []


def parquet_blocks(path: Path, names: Sequence[str], hint: str) -> Iterator[dict[str, Array]]:
    """The named columns of a file, which has them, in blocks of at most `GROUP_ROWS` rows. Raises as `read_parquet`."""
    with opened_parquet(path, hint) as file:
        yield from _blocks(file, names)


def joined_blocks(blocks: Iterable[Mapping[str, Array]], rows: int) -> dict[str, Array]:
    """The columns of all blocks, which have `rows` rows; ValueError if vectors differ in length, or do not fit.

    Cost: the vectors once, and a block.
    """
    tables: dict[str, Array] = {}
    others: dict[str, list[Array]] = {}
    at = 0
    for block in blocks:
        length = len(next(iter(block.values())))
        if length == rows:
            return dict(block)
        for name, array in block.items():
            assert len(array) == length, "a block has as many values of every column"
            if array.ndim == 1:
                others.setdefault(name, []).append(array)
                continue
            if name not in tables:
                check_memory(rows * array.shape[1] * array.itemsize)
                tables[name] = np.empty((rows, array.shape[1]), array.dtype)
            if array.shape[1] != tables[name].shape[1]:
                raise ValueError(f"holds vectors of {tables[name].shape[1]:,} and of {array.shape[1]:,} dimensions")
            tables[name][at : at + length] = array
        at += length
    return tables | {name: np.concatenate(parts) for name, parts in others.items()}


@contextmanager
def opened_parquet(path: Path, hint: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`. Raises as `read_parquet`, also for errors of the `with` block."""
    require_kind(path, PARQUET, hint)
    pyarrow, parquet = pyarrow_modules()
    try:
        with parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            yield file
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        text = str(error).partition("\n")[0]
        own = text.startswith(("holds", "needs"))
        raise DataError(f"{path} {text if own else f'is damaged: {text}'}", hint=hint) from error


def pyarrow_modules() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`; ConfigError without them."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("pyarrow is not installed", hint="it is installed with MLflow: `make setup`") from error


def encodable(value: Any) -> Any:
    """Names of files that are no UTF-8 are escaped."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _table(pyarrow: Any, columns: Columns) -> Any:
    def array_of(values: Sequence[Any] | np.ndarray) -> Any:
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), values.shape[1])
        if isinstance(values, np.ndarray) and values.dtype.kind != "U":
            return pyarrow.array(values)
        vector = next((value for value in values if isinstance(value, np.ndarray)), None)
        if vector is not None:
            # pyarrow 25 cannot read back a missing list of fixed size; the file's pages are the same.
            return pyarrow.array(values, pyarrow.list_(pyarrow.from_numpy_dtype(vector.dtype)))
        return pyarrow.array([encodable(value) for value in (values.tolist() if hasattr(values, "tolist") else values)])

    return pyarrow.table({name: array_of(values) for name, values in columns.items()})


def _blocks(file: Any, names: Sequence[str]) -> Iterator[dict[str, Array]]:
    for batch in file.iter_batches(GROUP_ROWS, columns=list(names), use_threads=False):
        yield {name: _array(name, batch.column(name)) for name in names}


def _array(name: str, column: Any) -> Array:
    """A column as an array, without a copy where it has a list of numbers a row."""
    types = pyarrow_modules()[0].types
    if column.null_count:
        raise ValueError(f"holds rows without `{name}`")
    if not any(is_list(column.type) for is_list in (types.is_fixed_size_list, types.is_list, types.is_large_list)):
        return np.array(column.to_pylist())
    flat, lengths = column.flatten(), set(column.value_lengths().to_pylist())
    if flat.null_count or len(lengths) != 1:
        raise ValueError(f"holds rows of `{name}` with different lengths, or with gaps")
    table: Array = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return table
