"""Prefect's database, checked before the temporary server opens it: what is wrong with it, and the way out."""

import shlex
import socket
from pathlib import Path

import prefect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pipeline.errors import ConfigError
from pipeline.runtime.sqlite_files import SqliteFileError, read_sqlite

_VERSIONS = Path(prefect.__file__).parent / "server" / "database" / "_migrations" / "versions" / "sqlite"
_VARIABLE = "PREFECT_API_DATABASE_CONNECTION_URL"
_ELSEWHERE = f"set PREFECT_HOME to another folder (or {_VARIABLE}, if it is set, to another database)"
_PATIENCE_SECONDS = 5.0


def expect_usable_store() -> None:
    """Refuse a database that Prefect's temporary server cannot use; a missing one is made by the server.

    Raises:
        ConfigError: It is locked, damaged, read-only, or of a newer Prefect; its server does not answer.
    """
    address = _address(PREFECT_API_DATABASE_CONNECTION_URL.value() or "")
    if address.get_backend_name() == "postgresql":
        _expect_answer(address)
        return
    path = Path(address.database or ":memory:").expanduser()
    if str(path).startswith((":", "file:")) or not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    name = f"Prefect's database {path.absolute()}, in PREFECT_HOME,"
    try:
        revision = read_sqlite(path, writing=True).revision
    except SqliteFileError as error:
        raise ConfigError(f"{name} cannot be used: {error}", hint=_way_out(error, path)) from error
    if revision is not None and not any(_VERSIONS.glob(f"*_{revision}_*.py")):
        raise ConfigError(
            f"{name} cannot be used: a newer Prefect has made it (schema {revision})",
            hint=f"{_ELSEWHERE}, or install the newer Prefect",
        )


def _way_out(error: SqliteFileError, path: Path) -> str:
    file, moved = shlex.quote(str(path.absolute())), shlex.quote(f"{path.absolute()}.damaged")
    match error.kind:
        case "damaged":
            return f"it contains the history of flow runs, and no results: `mv {file} {moved}`, or {_ELSEWHERE}"
        case "unwritable":
            return f"`chmod u+rw {file}` and `chmod u+rwx {shlex.quote(str(path.absolute().parent))}`, or {_ELSEWHERE}"
        case "full":
            return f"free some space, or {_ELSEWHERE}"
        case "busy" | "moved":
            return f"close the program that uses it and repeat the command, or {_ELSEWHERE}"


def _address(text: str) -> URL:
    try:
        address = make_url(text)
    except (ArgumentError, ValueError):
        address = None
    if address is None or address.drivername not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        raise ConfigError(
            f"{_VARIABLE} {text!r} is not the address of a database that Prefect uses",
            hint="unset it, or write sqlite+aiosqlite:////FOLDER/prefect.db or postgresql+asyncpg://USER@HOST/DATABASE",
        )
    return address


def _expect_answer(address: URL) -> None:
    if not address.host or "," in address.host:
        return
    try:
        socket.create_connection((address.host, address.port or 5432), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"Prefect's database {address.render_as_string()} does not answer: {error.strerror or error}",
            hint=f"start it, or correct or unset {_VARIABLE}",
        ) from error
