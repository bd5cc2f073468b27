"""Tables of this program as Parquet and SQLite files: rows that name images are dropped."""

import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import DataError
from pipeline.evaluation.feature_files import read_record
from pipeline.privacy.names import ImageNames
from pipeline.privacy.trace import Trace
from pipeline.runtime.atomic_files import replace_file
from pipeline.runtime.outputs import PARQUET, PARQUET_FEATURES, SQLITE
from pipeline.runtime.parquet_files import pyarrow_modules

_HINT = "remove the file, or write it again with the command that made it"
_COLUMNS = ("path", "paths", "query")


def database_traces(file: Path, names: ImageNames) -> Iterator[Trace]:
    """The trace of a table of this program; nothing for files of others.

    Raises:
        DataError: The file is damaged, or pyarrow is missing.
    """
    for kind, without in (
        (PARQUET, _without_in_parquet),
        (PARQUET_FEATURES, _without_in_parquet),
        (SQLITE, _without_in_sqlite),
    ):
        if kind.recognise(file):
            count, _ = without(file, names)
            if count:
                forget = partial(_rewrite, file, names, without)
                yield Trace(file, "rows of a table", count, "rewritten without them", forget)


def _rewrite(file: Path, names: ImageNames, without: Callable[[Path, ImageNames], tuple[int, bytes]]) -> None:
    _, content = without(file, names)

    def write(opened: BinaryIO) -> None:
        opened.write(content)

    replace_file(file, write)


def _without_in_parquet(file: Path, names: ImageNames) -> tuple[int, bytes]:
    """The number of rows that name images, and the file without them; paths of features start from their root."""
    pyarrow, parquet = pyarrow_modules()
    root = read_record(file).get("root") if PARQUET_FEATURES.recognise(file) else None
    folder = Path(root) if isinstance(root, str) else None
    try:
        table = parquet.read_table(io.BytesIO(file.read_bytes()))
        columns = [table.column(name).to_pylist() for name in _COLUMNS if name in table.column_names]
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{file} is damaged: {error}", hint=_HINT) from error
    kept = [not _is_named(row, names, folder) for row in zip(*columns, strict=True)]
    content = io.BytesIO()
    parquet.write_table(table.filter(pyarrow.array(kept)), content)
    return kept.count(False), content.getvalue()


def _without_in_sqlite(file: Path, names: ImageNames) -> tuple[int, bytes]:
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(file.read_bytes())
            database.execute("PRAGMA secure_delete = ON")  # zeros instead of rows that are only unlinked
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            count = sum(_delete(database, table, names) for table in tables)
            database.commit()
            return count, database.serialize()
    except sqlite3.Error as error:
        raise DataError(f"{file} is damaged: {error}", hint=_HINT) from error


def _delete(database: sqlite3.Connection, table: str, names: ImageNames) -> int:
    known = [column for _, column, *_ in database.execute(f'PRAGMA table_info("{table}")') if column in _COLUMNS]
    if not known:
        return 0
    rows = database.execute(f'SELECT rowid, {", ".join(known)} FROM "{table}"').fetchall()  # noqa: S608 - its own names
    named = [(row,) for row, *cells in rows if _is_named(cells, names)]
    database.executemany(f'DELETE FROM "{table}" WHERE rowid = ?', named)  # noqa: S608 - as above
    return len(named)


def _is_named(cells: Any, names: ImageNames, root: Path | None = None) -> bool:
    texts = [cell for cell in cells if isinstance(cell, str)]
    return any(names.match_text(text) if root is None else names.match(text, root) for text in texts)
