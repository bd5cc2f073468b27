"""Places of MLflow's record: pages of its user interface, and artifacts, whose absolute paths follow a moved folder."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.runtime.sqlite_files import PATIENCE_SECONDS, explain_sqlite

logger = logging.getLogger(__name__)

EXPERIMENT = "vireid"
"""The experiment of all runs."""

MODEL_TRAINING = "workflowType=machine_learning"
"""Opens MLflow's pages of runs, instead of those for language models."""

ARTIFACTS = "mlflow-artifacts"
"""Its folder of artifacts, beside a database file."""

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifact_location(file: Path) -> str:
    """Address of the folder of artifacts of a database file."""
    return (file.resolve().parent / ARTIFACTS).as_uri()


def runs_page(ui: str, experiment_id: str | None) -> str:
    """The table of runs at MLflow's user interface `ui`, in its part for trained models; of all experiments if None.

    >>> runs_page("http://127.0.0.1:5000", "1")
    'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning'
    """
    return f"{ui}/#/experiments{'' if experiment_id is None else f'/{experiment_id}/runs'}?{MODEL_TRAINING}"


def follow_move(file: Path) -> None:
    """Rewrite the paths in a database whose folder was moved or copied, in one transaction; else do nothing.

    The folder was moved if the experiment's artifacts are recorded beside another database, and either are beside this
    one or are gone there. A database that was moved without them keeps its paths.

    Raises:
        SqliteFileError: The file cannot be read or written.
    """
    with _opened(file) as database:
        old = _moved_from(database, file)
        if old is None:
            return
        new = artifact_location(file)
        with database:
            for table, column in _COLUMNS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names of ours
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    logger.info("the folder of runs has moved: MLflow's paths lead to %s now, instead of %s", new, old)


def present_place(file: Path, place: str) -> str:
    """Where an artifact lies now, for a reader of a database that was moved; nothing is written.

    Raises:
        SqliteFileError: The file cannot be read.
    """
    with _opened(file) as database:
        return _present(file, place, _moved_from(database, file))


def _present(file: Path, place: str, old: str | None) -> str:
    return place if old is None or not place.startswith(f"{old}/") else artifact_location(file) + place[len(old) :]


def artifact_places(file: Path) -> list[tuple[str, ...]]:
    """The present places of the artifacts of each recorded run: its own address, then those of its rounds.

    Raises:
        SqliteFileError: The file cannot be read.
    """
    query = (
        "SELECT run_uuid, artifact_uri, value FROM runs JOIN experiments USING (experiment_id) "
        "LEFT JOIN (SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId') USING (run_uuid) "
        "WHERE experiments.name = ? ORDER BY value IS NOT NULL"
    )
    with _opened(file) as database:
        old, rows = _moved_from(database, file), database.execute(query, (EXPERIMENT,)).fetchall()
    found: dict[str, list[str]] = {}
    for run, place, parent in rows:
        found.setdefault(parent or run, []).append(_present(file, place, old))
    return [tuple(places) for places in found.values()]


def experiment_number(file: Path) -> str | None:
    """The identifier of the experiment in an existing database; None before the first run. Raises as the others."""
    with _opened(file) as database:
        row = database.execute("SELECT experiment_id FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    return None if row is None else str(row[0])


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", PATIENCE_SECONDS, uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        raise explain_sqlite(error) from error


def _moved_from(database: sqlite3.Connection, file: Path) -> str | None:
    """The former address of the artifacts; None if they have not moved, or were never beside a database."""
    query = "SELECT artifact_location FROM experiments WHERE name = ?"
    found = database.execute(query, (EXPERIMENT,)).fetchone()
    if found is None or urlsplit(str(found[0])).scheme != "file":
        return None
    then, now = Path(unquote(urlsplit(found[0]).path)), file.resolve().parent / ARTIFACTS
    if then.name != ARTIFACTS or then == now or (then.exists() and (not now.exists() or then.samefile(now))):
        return None
    return str(found[0])
