"""Tables for other programs, as CSV, Parquet and SQLite files."""

import codecs
import csv
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.runtime.outputs import PARQUET_MARK, SQLITE_MARK, OutputKind, TableKind, write_output
from pipeline.runtime.parquet_files import Columns, encodable, write_parquet


@dataclass(frozen=True, slots=True)
class TableFiles:
    """Where a table is written, in up to three forms."""

    csv: Path | None = None
    parquet: Path | None = None
    sqlite: Path | None = None

    def write(self, table: TableKind, columns: Columns) -> list[Path]:
        """Write the table. Existing files of the same kind of table are replaced.

        Returns the files. Raises as `write_output`.

        Cost: a CSV file is written row by row; of Parquet and SQLite there are one and two copies in memory.
        """
        assert tuple(columns)[:2] == table.columns, "existing files are recognised by these columns"
        mark = {PARQUET_MARK: b"1"}
        forms: tuple[tuple[Path | None, str, Callable[[BinaryIO], object], OutputKind], ...] = (
            (self.csv, "--csv", lambda file: _write_csv(file, columns), table.csv),
            (self.parquet, "--parquet", lambda file: write_parquet(file, [columns], mark), table.parquet),
            (self.sqlite, "--sqlite", lambda file: file.write(_sqlite(table.name, columns)), table.sqlite),
        )
        written = []
        for path, option, write, kind in forms:
            if path is not None:
                write_output(path, write, kind, option)
                written.append(path)
        return written


def _rows(columns: Columns, vector: Callable[[np.ndarray], Any]) -> Iterator[tuple[Any, ...]]:
    def plain(value: Any) -> Any:
        return vector(value) if isinstance(value, np.ndarray) else encodable(value)

    return zip(*(map(plain, values) for values in columns.values()), strict=True)


def _write_csv(file: BinaryIO, columns: Columns) -> None:
    """Vectors are numbers with the nine digits from which float32 is read back exactly."""
    table = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
    table.writerow(columns)
    table.writerows(_rows(columns, lambda row: " ".join(["%.9g"] * len(row)) % tuple(row.tolist())))


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
