"""Tables for other programs, as CSV, Parquet and SQLite files."""

import csv
import io
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.runtime.outputs import CSV_TABLE, PARQUET, PARQUET_MARK, SQLITE, SQLITE_MARK, OutputKind, write_output
from pipeline.runtime.parquet_files import Columns, encodable, write_parquet


@dataclass(frozen=True, slots=True)
class TableFiles:
    """Where a table is written, in up to three forms."""

    csv: Path | None = None
    parquet: Path | None = None
    sqlite: Path | None = None

    def write(self, name: str, columns: Columns) -> list[Path]:
        """Write the table, whose first column is `encoder`; `name` is that of SQLite's table.

        Returns the files. Raises as `write_output`.
        """
        assert next(iter(columns)) == "encoder", "existing files are recognised by their first column"
        forms: tuple[tuple[Path | None, str, Callable[[BinaryIO], object], OutputKind], ...] = (
            (self.csv, "--csv", lambda file: file.write(_csv(columns)), CSV_TABLE),
            (self.parquet, "--parquet", lambda file: write_parquet(file, [columns], {PARQUET_MARK: b"1"}), PARQUET),
            (self.sqlite, "--sqlite", lambda file: file.write(_sqlite(name, columns)), SQLITE),
        )
        written = []
        for path, option, write, kind in forms:
            if path is not None:
                write_output(path, write, kind, option)
                written.append(path)
        return written


def _rows(columns: Columns, vector: Callable[[np.ndarray], Any]) -> Iterator[tuple[Any, ...]]:
    plain = (
        map(vector, values) if isinstance(values, np.ndarray) else [encodable(value) for value in values]
        for values in columns.values()
    )
    return zip(*plain, strict=True)


def _csv(columns: Columns) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(_rows(columns, lambda row: " ".join(map(str, row.tolist()))))
    return text.getvalue().encode()


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
