"""Tables for other programs, as CSV, Parquet and SQLite files."""

import csv
import importlib
import io
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import ConfigError
from pipeline.runtime.outputs import CSV_TABLE, PARQUET, PARQUET_MARK, SQLITE, SQLITE_MARK, OutputKind, write_output

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Values by column, the first of which is `encoder`; an array of two dimensions has a vector a row."""


@dataclass(frozen=True, slots=True)
class TableFiles:
    """Where a table is written, in up to three forms."""

    csv: Path | None = None
    parquet: Path | None = None
    sqlite: Path | None = None

    def write(self, name: str, columns: Columns) -> list[Path]:
        """Write the table; `name` is that of SQLite's table. Returns the files. Raises as `write_output`."""
        assert next(iter(columns)) == "encoder", "existing files are recognised by their first column"
        forms: tuple[tuple[Path | None, str, Callable[[str, Columns], bytes], OutputKind], ...] = (
            (self.csv, "--csv", _csv, CSV_TABLE),
            (self.parquet, "--parquet", _parquet, PARQUET),
            (self.sqlite, "--sqlite", _sqlite, SQLITE),
        )
        written = []
        for path, option, encode, kind in forms:
            if path is not None:
                content = encode(name, columns)
                write_output(path, partial(_copy, content), kind, option)
                written.append(path)
        return written


def _copy(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _rows(columns: Columns, vector: Callable[[np.ndarray], Any]) -> Iterator[tuple[Any, ...]]:
    plain = (
        map(vector, values) if isinstance(values, np.ndarray) else [_encodable(value) for value in values]
        for values in columns.values()
    )
    return zip(*plain, strict=True)


def _encodable(value: Any) -> Any:
    """Names of files that are no UTF-8 are escaped."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _csv(_: str, columns: Columns) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(_rows(columns, lambda row: " ".join(map(str, row.tolist()))))
    return text.getvalue().encode()


def _parquet(_: str, columns: Columns) -> bytes:
    try:
        pyarrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("pyarrow is not installed", hint="it is installed with MLflow: `make setup`") from error
    arrays = {
        name: pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), values.shape[1])
        if isinstance(values, np.ndarray)
        else pyarrow.array([_encodable(value) for value in values])
        for name, values in columns.items()
    }
    table = pyarrow.table(arrays).replace_schema_metadata({PARQUET_MARK: b"1"})
    content = io.BytesIO()
    parquet.write_table(table, content)
    return content.getvalue()


def _sqlite(name: str, columns: Columns) -> bytes:
    """Vectors are little-endian float32 in a blob."""
    names = ", ".join(f'"{column}"' for column in columns)
    marks = ", ".join("?" for _ in columns)
    with sqlite3.connect(":memory:") as database:
        database.execute(f"PRAGMA application_id = {SQLITE_MARK}")
        database.execute(f'CREATE TABLE "{name}" ({names})')
        rows = _rows(columns, lambda row: row.astype("<f4").tobytes())
        database.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)  # noqa: S608 - our own names
    return database.serialize()
