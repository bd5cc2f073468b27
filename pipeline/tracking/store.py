"""The store of MLflow: its address, a new database that is complete or absent, and its errors in one sentence."""

import fcntl
import logging
import os
import re
import shlex
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pipeline.errors import TrackingError
from pipeline.runtime.atomic_files import TEMPORARY
from pipeline.runtime.sqlite_files import SqliteContent, SqliteFileError, explain_sqlite, is_empty, read_sqlite
from pipeline.secrets import mask_handlers
from pipeline.tracking.places import experiment_number, follow_move, runs_page

URI_VARIABLE = "MLFLOW_TRACKING_URI"

_SQLITE = "sqlite:///"
_DATABASE = "mlflow.db"
_UPLOAD = ".artifact.uploading."  # MLflow's name
_MAKING_SECONDS = 300.0
_LONGEST_REASON = 300
_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "psycopg": "'psycopg[binary]'"}
_FORMS = "http://HOST:PORT, https://..., sqlite:////FOLDER/mlflow.db or postgresql+psycopg2://USER@HOST/DATABASE"
_WAY_ON = f"repeat the command, or set another {URI_VARIABLE}"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PATIENCE_SECONDS = 5.0
_NOT_ACTIVE = re.compile(r"The (experiment|run) '?(\w+)'? must be in the 'active' state")


class StoreError(Exception):
    """A store that cannot be used: a clause with the reason, and the way out."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def tracking_uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, by default `mlflow.db` in the folder of runs."""
    return os.environ.get(URI_VARIABLE) or default_uri(runs)


def default_uri(runs: Path) -> str:
    """The address of `mlflow.db` in the folder of runs."""
    return f"{_SQLITE}{runs.resolve() / _DATABASE}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite address; None for servers, other databases and databases in memory."""
    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return None if not name or name.startswith((":", "file:")) else Path(name).absolute()


def prepare_store(runs: Path) -> None:
    """Make `mlflow.db` in a folder of runs if it is missing; call it before MLflow's own server opens the file.

    Raises:
        TrackingError: MLflow cannot use the file.
    """
    uri = default_uri(runs)
    with answering(uri, runs, "be used"):
        prepare(uri)


def page_of_runs(runs: Path, ui: str) -> str:
    """The page of MLflow's user interface `ui` that shows the runs in the existing `mlflow.db` of a folder."""
    uri = default_uri(runs)
    with answering(uri, runs):
        return runs_page(ui, experiment_number(runs.resolve() / _DATABASE))


def prepare(uri: str) -> None:
    """Make the database of an SQLite address if it is missing; refuse one that MLflow cannot write to.

    MLflow makes a database in hundreds of steps, and cannot use one that lacks some of them. It is therefore made
    beside its place and renamed, by one process at a time. Paths in one that was moved follow it. Nothing is done for
    other addresses.
    """
    file = sqlite_file(uri)
    if file is not None:
        if not file.exists() or file.stat().st_size == 0:
            _make(file.resolve())  # a link stays
        check(uri, writing=True)
        follow_move(file)


def check(uri: str, *, writing: bool) -> None:
    """Refuse an SQLite file that is locked, damaged, missing, or of another version; `writing` also a read-only one."""
    file = sqlite_file(uri)
    if file is not None:
        if not file.exists():
            raise StoreError("there is no such file", f"train a run first, or name its store in {URI_VARIABLE}")
        _check_schema(file, read_sqlite(file, writing=writing))


def remove_left_uploads(artifact_uri: str) -> None:
    """Remove the partial files that a killed process has left in a local folder of artifacts."""
    place = urlsplit(artifact_uri)
    if place.scheme == "file":
        for path in Path(unquote(place.path)).glob(f"{_UPLOAD}*"):
            path.unlink(missing_ok=True)


@contextmanager
def answering(uri: str, runs: Path, purpose: str = "be read", way_on: str = _WAY_ON) -> Iterator[None]:
    """Turn errors of MLflow and of libraries below it into a `TrackingError`, also of an address or absent server.

    Args:
        uri: The address of the store.
        runs: The folder of runs.
        purpose: What MLflow cannot do.
        way_on: The hint, or its end, where no command mends the store.
    """
    _quiet_libraries()
    try:
        _expect_address(uri)
        check_reachable(uri)
        yield
    except (MlflowException, SQLAlchemyError, SqliteFileError, StoreError, ImportError, OSError) as error:
        reason, hint = _explained(error, uri, runs, way_on)
        raise TrackingError(f"MLflow at {uri} cannot {purpose}: {reason}", hint=hint) from error


def check_reachable(uri: str) -> None:
    """Raise `OSError` at once if no server listens: MLflow repeats requests for minutes. Skipped behind proxies."""
    place = urlsplit(uri)
    port = place.port or _PORTS.get(place.scheme.partition("+")[0])
    if port is None or not place.hostname or "," in place.hostname:
        return
    if place.scheme in getproxies() and not proxy_bypass(place.hostname):
        return
    socket.create_connection((place.hostname, port), timeout=_PATIENCE_SECONDS).close()


def restore_command(uri: str, kind: str, number: str) -> str:
    """The command that restores a deleted `experiment` or `run`."""
    store = "" if os.environ.get(URI_VARIABLE) else f"{URI_VARIABLE}={shlex.quote(uri)} "
    return f"{store}{_program()} {kind}s restore --{'experiment' if kind == 'experiment' else 'run'}-id {number}"


def _make(file: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    file.parent.mkdir(parents=True, exist_ok=True)
    with _one_maker(file):
        if file.exists() and file.stat().st_size > 0:
            return  # made by another process meanwhile
        unfinished = file.with_name(file.name + TEMPORARY)
        parts = [unfinished.with_name(unfinished.name + suffix) for suffix in ("", "-journal", "-wal", "-shm")]
        try:
            for part in parts:
                part.unlink(missing_ok=True)  # of a process that was killed
            engine = create_sqlalchemy_engine(f"{_SQLITE}{unfinished}")
            event.listen(engine, "connect", _without_syncing)
            try:
                _initialize_tables(engine)
            finally:
                engine.dispose()
            with unfinished.open("rb") as made:
                os.fsync(made.fileno())
            unfinished.replace(file)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)


def _without_syncing(connection: sqlite3.Connection, _: object) -> None:
    """Save most of the seconds that making a database takes; it is synced once, when it is complete."""
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@contextmanager
def _one_maker(file: Path) -> Iterator[None]:
    """Hold the lock of `file`; the kernel releases that of a killed process."""
    with file.with_name(f"{file.name}.lock").open("ab") as lock:
        limit = time.monotonic() + _MAKING_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise SqliteFileError("busy", "another process is making it") from None
                time.sleep(0.1)
        yield


def _check_schema(file: Path, content: SqliteContent) -> None:
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    newest = scripts.get_current_head()
    if content.revision == newest:
        return
    if content.revision is None or not content.tables >= {"experiments", "runs"}:
        raise SqliteFileError("damaged", "it is the database of another program, or is not complete")
    schemas = f"its schema is {content.revision}, and MLflow {version('mlflow')} has {newest}"
    if content.revision not in {script.revision for script in scripts.walk_revisions()}:
        install = f"{shlex.quote(sys.executable)} -m pip install --upgrade mlflow"
        raise StoreError(
            f"a newer MLflow has made it: {schemas}",
            f"install the newer MLflow (`{install}`), or set another {URI_VARIABLE}",
        )
    if is_empty(file, "runs"):  # such as one whose making was killed, which MLflow cannot upgrade
        raise SqliteFileError("damaged", f"it has no runs, and is old or not complete: {schemas}")
    copy = f"cp {shlex.quote(str(file))} {shlex.quote(f'{file}.before')}"
    raise StoreError(
        f"an older MLflow has made it: {schemas}",
        f"copy it, and upgrade it: `{copy} && {_program()} db upgrade {shlex.quote(f'{_SQLITE}{file}')}`",
    )


def _expect_address(uri: str) -> None:
    wrong = StoreError("this is not the address of a store", f"correct {URI_VARIABLE}: {_FORMS}")
    try:
        place = urlsplit(uri)
        if place.scheme in ("http", "https"):
            if place.hostname is None or place.port == 0:
                raise wrong
        elif place.scheme.partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
            address = make_url(uri)
            address.get_dialect()
            if place.scheme.startswith("sqlite") and (address.host or (address.database or ":").startswith(":")):
                raise wrong
            if not os.environ.get(URI_VARIABLE) and address.database != uri.removeprefix(_SQLITE):
                raise StoreError(
                    "the name of its folder contains ? or %", f"choose another folder of runs, or set {URI_VARIABLE}"
                )
    except (ValueError, SQLAlchemyError) as error:
        raise wrong from error


def _explained(error: BaseException, uri: str, runs: Path, way_on: str) -> tuple[str, str]:
    """Reason and hint."""
    for one in _causes(error):
        if isinstance(one, StoreError):
            return one.reason, one.hint
        if isinstance(one, SqliteFileError):
            return str(one), _way_out(one, sqlite_file(uri), runs, way_on)
        if isinstance(one, sqlite3.Error):
            found = explain_sqlite(one)
            return str(found), _way_out(found, sqlite_file(uri), runs, way_on)
        if isinstance(one, ImportError):
            name = one.name or str(one)
            install = f"{shlex.quote(sys.executable)} -m pip install {_PACKAGES.get(name, name)}"
            return (
                f"the driver {name} is not installed",
                f"install it (`{install}`), or set another {URI_VARIABLE}",
            )
    text = _first_line(error)
    if "unsupported URI" in text:
        return "this is not the address of a store", f"correct {URI_VARIABLE}: {_FORMS}"
    if "maintenance mode" in text:
        migrate = f"`{_program()} migrate-filestore` converts a folder"
        return (
            f"MLflow {version('mlflow')} does not record in folders",
            f"set {URI_VARIABLE} to a database ({migrate}), or set MLFLOW_ALLOW_FILE_STORE=true",
        )
    if deleted := _NOT_ACTIVE.search(text):
        return f"its {deleted[1]} {deleted[2]} was deleted", f"restore it: `{restore_command(uri, *deleted.groups())}`"
    if code := re.search(r"error code (40[13])\b", text):
        return (
            f"it refuses user and password (HTTP {code[1]})",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    return text, way_on


def _way_out(error: SqliteFileError, file: Path | None, runs: Path, way_on: str) -> str:
    if file is None:
        return f"correct {URI_VARIABLE}: {_FORMS}"
    name, moved = shlex.quote(str(file)), shlex.quote(f"{file}.damaged")
    match error.kind:
        case "busy":
            return f"close that program; {way_on}"
        case "damaged":
            sync = "vireid runs sync" + ("" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}")
            return (
                f"run folders contain what MLflow has recorded: move the file away, `mv {name} {moved}`, then `{sync}`"
            )
        case "unwritable":
            return f"`chmod u+rw {name}` and `chmod u+rwx {shlex.quote(str(file.parent))}`; {way_on}"
        case "moved":
            return way_on
        case "full":
            return f"free some space; {way_on}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        if isinstance(one, DBAPIError) and one.orig is not None:
            yield one.orig
        one = one.__cause__


def _first_line(error: BaseException) -> str:
    """The first line of the innermost message that has the reason: without SQL, and not a page of HTML."""
    database = next((one for one in _causes(error) if isinstance(one, DBAPIError)), None)
    if database is not None:
        text = str(database.orig)
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    else:
        text = str(error.message if isinstance(error, MlflowException) else error)
    line = text.strip().partition("\n")[0].partition("<")[0].rstrip(" .:'")
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " ..."


def _program() -> str:
    """MLflow's command of this environment."""
    return shlex.quote(str(Path(sys.executable).with_name("mlflow")))


class _WithoutErrors(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING


_without_errors = _WithoutErrors()


def _quiet_libraries() -> None:
    """Log no stack traces of errors that are raised as well, and no passwords."""
    for name in ("mlflow.store.db.utils", "sqlalchemy.pool"):
        logging.getLogger(name).addFilter(_without_errors)
    mask_handlers("mlflow", "alembic")


if __name__ == "__main__":  # `make ui`
    try:
        prepare_store(Path(sys.argv[1]))
        sys.stdout.write(f"open {page_of_runs(Path(sys.argv[1]), sys.argv[2])}\n")
    except TrackingError as problem:
        sys.exit(f"error: {problem.message}\nhint: {problem.hint}")
