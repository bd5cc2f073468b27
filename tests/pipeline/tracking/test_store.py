"""MLflow's store is complete or absent, and what makes it unusable is one sentence with the way out."""

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow.store.db.utils
import pytest
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import TrackingError
from pipeline.runtime import sqlite_files
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking import store
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import read_note
from pipeline.tracking.store import prepare_store

CONFIG = {"seed": 1}


class Killed(BaseException):
    """Ends a call as a kill does: no `except` clause of the code in between applies."""


def start(runs: Path, name: str = "run") -> MlflowTracker:
    with RunFolder.open(runs / name, CONFIG, "aaaa") as folder:
        tracker = MlflowTracker(runs, folder)
        tracker.start(CONFIG)
        return tracker


def failure(runs: Path) -> TrackingError:
    with pytest.raises(TrackingError) as caught:
        start(runs)
    error = caught.value
    for words in ("sqlite3.", "[SQL", "sqlalche.me", "Traceback", "\n", "autoflush"):
        assert words not in error.message and words not in error.hint
    return error


def change(runs: Path, *statements: str) -> None:
    with closing(sqlite3.connect(runs / "mlflow.db")) as file:
        for statement in statements:
            file.execute(statement)
        file.commit()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(engine: sqlalchemy.Engine) -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE _alembic_tmp_runs (a INTEGER)"))
        os._exit(9)

    monkeypatch.setattr(mlflow.store.db.utils, "_initialize_tables", die)
    if (child := os.fork()) == 0:
        try:
            prepare_store(tmp_path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert names(tmp_path) == {"mlflow.db.tmp", "mlflow.db.lock"}
    monkeypatch.undo()
    prepare_store(tmp_path)
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}
    sqlite_files.read_sqlite(tmp_path / "mlflow.db", writing=True)


def test_two_makers_make_one_database(
    tmp_path: Path, made_runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []

    def copy(engine: sqlalchemy.Engine) -> None:
        made.append(1)
        Path(engine.url.database).write_bytes((made_runs / "mlflow.db").read_bytes())

    monkeypatch.setattr(mlflow.store.db.utils, "_initialize_tables", copy)
    (tmp_path / "new").mkdir()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(prepare_store, [tmp_path / "new"] * 3))
    assert len(made) == 1


def test_an_empty_file_is_no_database_yet(made_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (made_runs / "mlflow.db").read_bytes()
    (made_runs / "mlflow.db").write_bytes(b"")  # a full disk, or another program
    monkeypatch.setattr(
        mlflow.store.db.utils, "_initialize_tables", lambda engine: Path(engine.url.database).write_bytes(content)
    )
    prepare_store(made_runs)
    assert (made_runs / "mlflow.db").read_bytes() == content


def test_a_link_to_another_disk_stays(made_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (made_runs / "mlflow.db").read_bytes()
    monkeypatch.setattr(
        mlflow.store.db.utils, "_initialize_tables", lambda engine: Path(engine.url.database).write_bytes(content)
    )
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "mlflow.db").symlink_to(tmp_path / "scratch" / "mlflow.db")
    prepare_store(tmp_path / "linked")
    assert (tmp_path / "linked" / "mlflow.db").is_symlink() and (tmp_path / "scratch" / "mlflow.db").is_file()


def test_a_full_disk_while_it_is_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(engine: sqlalchemy.Engine) -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("PRAGMA max_page_count = 4"))
            connection.execute(sqlalchemy.text("CREATE TABLE a AS SELECT randomblob(100000) AS b"))

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.store.db.utils, "_initialize_tables", full)
    error = failure(tmp_path)
    assert "the disk is full" in error.message and "free some space" in error.hint
    assert names(tmp_path) == {"run", "mlflow.db.lock"}


@contextmanager
def held(runs: Path) -> Iterator[None]:
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def cut(runs: Path) -> None:
    with (runs / "mlflow.db").open("r+b") as file:
        file.truncate(20_000)


def overwrite(runs: Path) -> None:
    (runs / "mlflow.db").write_bytes(b"<html>sign in</html>" * 400)


def place_folder(runs: Path) -> None:
    (runs / "mlflow.db").unlink()
    (runs / "mlflow.db").mkdir()


def leave_half_made(runs: Path) -> None:
    change(
        runs, "CREATE TABLE _alembic_tmp_model_version_tags (a INTEGER)", "UPDATE alembic_version SET version_num = 'x'"
    )


def place_other(runs: Path) -> None:
    (runs / "mlflow.db").unlink()
    change(runs, "CREATE TABLE flow_run (a INTEGER)")


def lose_a_page(runs: Path) -> None:
    with (runs / "mlflow.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 40))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "it is damaged or truncated"),
        (overwrite, "it is not a database"),
        (place_folder, "it is not a file"),
        (leave_half_made, "was killed before it was complete"),
        (lambda runs: change(runs, "UPDATE alembic_version SET version_num = '89d4b8295536'"), "it has no runs"),
        (place_other, "of another program, or is not complete"),
        (lose_a_page, "it is damaged"),
        (lambda runs: change(runs, "DROP TABLE experiment_tags"), "it is damaged"),
    ],
)
def test_a_damaged_store_names_the_file_and_the_way_out(
    made_runs: Path,
    damage: Callable[[Path], None],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sqlite_files, "_STILL_SECONDS", 0.01)
    damage(made_runs)
    error, file = failure(made_runs), made_runs / "mlflow.db"
    assert reason in error.message and str(file) in error.message
    assert f"mv {file} {file}.damaged`, then `vireid runs sync --runs {made_runs}`" in error.hint
    assert "Traceback" not in capfd.readouterr().err


def test_a_locked_store_is_waited_for_and_then_one_sentence(
    made_runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sqlite_files, "PATIENCE_SECONDS", 0.1)
    with held(made_runs):
        error = failure(made_runs)
    assert "another program uses it" in error.message and "the run folder is intact" in error.hint
    assert "Traceback" not in capfd.readouterr().err
    start(made_runs)


def test_a_store_that_is_locked_later_is_one_sentence_too(
    made_runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start(made_runs)
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorname = "SQLITE_BUSY"  # type: ignore[misc]

    def refuse(*_: object, **__: object) -> None:
        below = sqlalchemy.exc.OperationalError("INSERT INTO runs", {}, locked)
        raise MlflowException(message=below) from below

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    with pytest.raises(TrackingError) as caught:
        tracker.attach(made_runs)
    assert caught.value.message.endswith("cannot record this run: another program uses it, and has locked it")
    assert caught.value.hint == f"close that program; `vireid runs sync {made_runs / 'run'}` sends what is missing"


@pytest.mark.parametrize("read_only", ["mlflow.db", "."])
def test_a_read_only_store_is_one_sentence(made_runs: Path, read_only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access

    def access(path: Path, mode: int) -> bool:
        return allowed(path, mode) and not (mode == os.W_OK and Path(path) == made_runs / read_only)

    monkeypatch.setattr(sqlite_files.os, "access", access)
    error = failure(made_runs)
    assert "is read-only" in error.message and f"chmod u+rw {made_runs / 'mlflow.db'}" in error.hint


def test_an_older_store_is_upgraded_by_the_command_that_the_hint_names(made_runs: Path) -> None:
    start(made_runs)
    change(made_runs, "UPDATE alembic_version SET version_num = '89d4b8295536'")
    error, file = failure(made_runs), made_runs / "mlflow.db"
    assert "an older MLflow has made it" in error.message
    assert f"`cp {file} {file}.before && " in error.hint and f"mlflow db upgrade sqlite:///{file}`" in error.hint


def test_a_newer_store_is_one_sentence(made_runs: Path) -> None:
    change(made_runs, "UPDATE alembic_version SET version_num = 'ffff00000000'")
    error = failure(made_runs)
    assert "a newer MLflow has made it: its schema is ffff00000000" in error.message
    assert "pip install --upgrade mlflow" in error.hint


@pytest.mark.parametrize(
    ("uri", "reason", "way_out"),
    [
        ("postgresql://u:s3cr3t@{host}/db", "the driver psycopg is not installed", "pip install 'psycopg[binary]'"),
        ("mysql+pymysql://u:s3cr3t@{host}/db", "the driver pymysql is not installed", "pip install pymysql"),
        ("mssql+pyodbc://u:s3cr3t@{host}/db", "the driver pyodbc is not installed", "pip install pyodbc"),
        ("mysql://u:s3cr3t@{host}/db", "the driver MySQLdb is not installed", "pip install mysqlclient"),
        ("postgresql+nothing://u:s3cr3t@{host}/db", "not the address of a store", "correct MLFLOW_TRACKING_URI"),
        ("redis://u:s3cr3t@host", "not the address of a store", "correct MLFLOW_TRACKING_URI"),
        ("localhost:5000", "not the address of a store", "http://HOST:PORT"),
        ("postgres://u:s3cr3t@{host}/db", "not the address of a store", "postgresql+psycopg2://"),
        ("sqlite://mlflow.db", "not the address of a store", "sqlite:////FOLDER/mlflow.db"),
        ("sqlite:///:memory:", "not the address of a store", "sqlite:////FOLDER/mlflow.db"),
        ("http://u:s3cr3t@host:no", "not the address of a store", "http://HOST:PORT"),
        ("http://[::1", "not the address of a store", "http://HOST:PORT"),
        ("./mlruns", "does not record in folders", "migrate-filestore"),
        ("file:///nowhere/mlruns", "does not record in folders", "MLFLOW_ALLOW_FILE_STORE=true"),
        ("sqlite:////proc/nowhere/mlflow.db", "No such file or directory", "repeat the command"),
        ("postgresql://u:s3cr3t@127.0.0.1:9/db", "Connection refused", "repeat the command"),
    ],
)
def test_a_wrong_address_is_one_sentence(
    tmp_path: Path, uri: str, reason: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as place:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(host=f"127.0.0.1:{place.getsockname()[1]}"))
        error = failure(tmp_path / "runs")
    assert reason in error.message and way_out in error.hint
    assert "s3cr3t" not in error.message + error.hint
    assert names(tmp_path) == {"runs"}


def test_folders_of_runs_with_signs_that_addresses_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    error = failure(tmp_path / "what?")
    assert "contains ? or %" in error.message and "another folder of runs" in error.hint
    assert names(tmp_path) == {"what?"}


@pytest.mark.parametrize(
    ("code", "reason"), [(401, "refuses user and password (HTTP 401)"), (200, "not in a valid JSON"), (404, "404")]
)
def test_a_server_that_is_not_mlflow_is_one_sentence(
    tmp_path: Path, code: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(b"<html>\n<title>sign in</title>")

        do_POST = do_GET  # noqa: N815 - the server's names

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://u:s3cr3t@127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        error = failure(tmp_path / "runs")
        server.shutdown()
    assert reason in error.message and "<html" not in error.message and "s3cr3t" not in error.message


def test_a_deleted_experiment_is_restored_with_its_runs(made_runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = start(made_runs)
    client = MlflowClient(tracking_uri=tracker.uri)
    number = client.get_experiment_by_name("vireid").experiment_id
    client.delete_experiment(number)
    with pytest.raises(TrackingError) as caught:
        tracker.round(1, {"a": 1.0}, {})
    assert "was deleted" in caught.value.message and "MLFLOW_TRACKING_URI=sqlite:///" in caught.value.hint
    assert f"mlflow experiments restore --experiment-id {number}`" in caught.value.hint
    before = read_note(made_runs / "run")
    start(made_runs)
    assert read_note(made_runs / "run") == before
    assert [line for line in caplog.messages if "restored" in line] == [
        f"MLflow's experiment vireid ({number}) was deleted: restored, with its runs"
    ]


def test_a_run_that_is_deleted_while_it_is_recorded_names_the_command(made_runs: Path) -> None:
    tracker = start(made_runs)
    run_id = read_note(made_runs / "run").run_id
    MlflowClient(tracking_uri=tracker.uri).delete_run(run_id)
    with pytest.raises(TrackingError, match=f"its run {run_id} was deleted") as caught:
        tracker.round(1, {"a": 1.0}, {})
    assert f"mlflow runs restore --run-id {run_id}`" in caught.value.hint


def test_the_reason_of_the_operating_system_names_the_file(made_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = start(made_runs)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/somewhere/mlflow-artifacts")

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    with pytest.raises(TrackingError, match="Permission denied: /somewhere/mlflow-artifacts"):
        tracker.attach(made_runs)


@pytest.mark.slow
def test_a_real_kill_while_the_database_is_made(tmp_path: Path) -> None:
    program = "from pathlib import Path; from pipeline.tracking.store import prepare_store; prepare_store(Path('.'))"
    environment = os.environ | {"PYTHONPATH": str(Path(store.__file__).parents[2])}
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as process:
            while process.poll() is None and not (tmp_path / "mlflow.db.tmp").exists():
                signal.sigtimedwait([], 0.05)
            process.kill()
    assert "mlflow.db" not in names(tmp_path) or sqlite_files.read_sqlite(tmp_path / "mlflow.db", writing=True)
    prepare_store(tmp_path)
