"""SQLite files that libraries make and write: their tables, or the reason why they cannot be used."""

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PATIENCE_SECONDS = 10.0
"""Longest wait for another program that uses a file."""

_STILL_SECONDS = 3.0
_MIGRATING = "_alembic_tmp_"

Kind = Literal["busy", "damaged", "moved", "unwritable", "full"]

_REASONS: dict[str, tuple[Kind, str]] = {
    "SQLITE_BUSY": ("busy", "another program uses it, and has locked it"),
    "SQLITE_LOCKED": ("busy", "another program uses it, and has locked it"),
    "SQLITE_PROTOCOL": ("busy", "another program uses it, and has locked it"),
    "SQLITE_NOTADB": ("damaged", "it is not a database"),
    "SQLITE_CORRUPT": ("damaged", "it is damaged or truncated"),
    "SQLITE_READONLY_DBMOVED": ("moved", "it was moved or replaced while it was open"),
    "SQLITE_READONLY": ("unwritable", "it cannot be written to"),
    "SQLITE_CANTOPEN": ("unwritable", "it cannot be opened"),
    "SQLITE_PERM": ("unwritable", "it cannot be opened"),
    "SQLITE_FULL": ("full", "the disk is full"),
    "SQLITE_IOERR": ("full", "the disk is full or has failed"),
}


class SqliteFileError(Exception):
    """A file that cannot be used; the message is the reason, as a clause."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class SqliteContent:
    """Tables of a file, and the revision of their schema in Alembic's table; None without that table."""

    tables: frozenset[str]
    revision: str | None


def explain_sqlite(error: sqlite3.Error) -> SqliteFileError:
    """The reason for an error of SQLite, by its code; SQLITE_READONLY_DIRECTORY and others extend a short one."""
    code = getattr(error, "sqlite_errorname", None) or ""
    known = next((found for name, found in _REASONS.items() if code.startswith(name)), None)
    return SqliteFileError(*(known or ("damaged", f"it is damaged: {error}")))


def read_sqlite(path: Path, *, writing: bool) -> SqliteContent:
    """Tables and revision of an existing file; `writing` also requires that it can be written to.

    Waits `PATIENCE_SECONDS` for a lock of another program, and for a migration in progress to end.

    Raises:
        SqliteFileError: Locked, truncated, no database, left in the middle of a migration, or not accessible.
    """
    if not path.is_file():
        raise SqliteFileError("damaged", "it is not a file")
    if not os.access(path, os.R_OK):
        raise SqliteFileError("unwritable", "it cannot be read: permission denied")
    if writing and not os.access(path, os.W_OK):
        raise SqliteFileError("unwritable", "the file is read-only")
    if writing and not os.access(path.parent, os.W_OK):
        raise SqliteFileError("unwritable", f"its folder {path.parent} is read-only")
    content = _read(path, writing)
    changed = -1
    while any(table.startswith(_MIGRATING) for table in content.tables):
        if changed == (changed := path.stat().st_mtime_ns):
            raise SqliteFileError("damaged", "a process that made or upgraded it was killed before it was complete")
        time.sleep(_STILL_SECONDS)  # a living process changes the file meanwhile
        content = _read(path, writing)
    return content


def _read(path: Path, writing: bool) -> SqliteContent:
    try:
        # Not `mode=ro`, which cannot roll back what a killed process has left.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", PATIENCE_SECONDS, uri=True)) as file:
            file.isolation_level = None
            file.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            tables = frozenset(name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            versions = "SELECT version_num FROM alembic_version"
            row = file.execute(versions).fetchone() if "alembic_version" in tables else None
            file.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise explain_sqlite(error) from error
    return SqliteContent(tables, None if row is None else str(row[0]))


def is_empty(path: Path, table: str) -> bool:
    """Whether an existing table has no rows. Raises as `read_sqlite`."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", PATIENCE_SECONDS, uri=True)) as file:
            return file.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is None  # noqa: S608 - a name of ours
    except sqlite3.Error as error:
        raise explain_sqlite(error) from error
