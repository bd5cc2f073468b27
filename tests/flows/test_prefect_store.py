"""A database that Prefect's temporary server cannot use is one sentence with the way out."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows import deployments, prefect_local
from flows.prefect_local import prefect_at_terminal
from flows.prefect_store import expect_usable_store
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import AnyConfig
from pipeline.errors import ConfigError
from pipeline.runtime import sqlite_files


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def failure(address: str, home: Path) -> ConfigError:
    changes = {PREFECT_HOME: home, PREFECT_API_DATABASE_CONNECTION_URL: address}
    with temporary_settings(changes), pytest.raises(ConfigError) as caught:
        expect_usable_store()
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("damage", "reason", "way_out"),
    [
        (lambda file: file.write_bytes(b"<html>" * 1000), "it is not a database", "mv {file} {file}.damaged"),
        (lambda file: file.mkdir(), "it is not a file", "mv {file} {file}.damaged"),
        (
            lambda file: change(file, "CREATE TABLE _alembic_tmp_flow_run (a INTEGER)"),
            "was killed before it was complete",
            "mv {file} {file}.damaged",
        ),
        (
            lambda file: change(
                file, "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('ffff')"
            ),
            "a newer Prefect has made it (schema ffff)",
            "install the newer Prefect",
        ),
    ],
)
def test_a_damaged_database_names_the_file_and_the_way_out(
    tmp_path: Path, damage: Callable[[Path], None], reason: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "_STILL_SECONDS", 0.01)
    file = tmp_path / "prefect.db"
    damage(file)
    error = failure(f"sqlite+aiosqlite:///{file}", tmp_path)
    assert reason in error.message and str(file) in error.message and "PREFECT_HOME" in error.message
    assert way_out.format(file=file) in error.hint and "PREFECT_HOME" in error.hint


def test_a_locked_or_read_only_database_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_files, "PATIENCE_SECONDS", 0.1)
    file = tmp_path / "prefect.db"
    change(file, "CREATE TABLE a (b INTEGER)")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "another program uses it" in failure(f"sqlite+aiosqlite:///{file}", tmp_path).message
    monkeypatch.setattr(sqlite_files.os, "access", lambda _, mode: mode != os.W_OK)
    error = failure(f"sqlite+aiosqlite:///{file}", tmp_path)
    assert "the file is read-only" in error.message and f"chmod u+rw {file}" in error.hint


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("postgresql+asyncpg://u:s3cr3t@127.0.0.1:9/prefect", "does not answer: Connection refused"),
        ("mysql://u:s3cr3t@127.0.0.1:9/prefect", "is not the address of a database that Prefect uses"),
        ("sqlite:///prefect.db", "is not the address of a database that Prefect uses"),
        ("nonsense", "is not the address of a database that Prefect uses"),
    ],
)
def test_a_wrong_address_is_one_sentence(tmp_path: Path, address: str, reason: str) -> None:
    error = failure(address, tmp_path)
    assert reason in error.message and "s3cr3t" not in error.message + error.hint


def test_usable_and_missing_databases_pass(tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{file}"}):
        expect_usable_store()
        assert not file.exists(), "the check makes no file"
        change(file, "CREATE TABLE alembic_version (version_num TEXT)")
        expect_usable_store()
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: "sqlite+aiosqlite:///:memory:"}):
        expect_usable_store()


def test_a_run_at_the_terminal_does_without_a_database_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(prefect_local.logger, "warning", lambda text, *values: lines.append(text % values))
    monkeypatch.setattr(prefect_local, "temporary_server", None)
    (tmp_path / "prefect.db").write_bytes(b"<html>" * 1000)
    address = f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"
    with (
        temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: address}, restore_defaults={PREFECT_API_URL}),
        prefect_at_terminal(),
    ):
        (line,) = lines
    assert "it is not a database; the work is done without it. it contains the history of flow runs" in line


def test_a_flow_without_prefect_receives_the_same_values(
    smoke_config: CclnetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[AnyConfig] = []
    monkeypatch.setattr(deployments, "train_as_tasks", received.append)
    token = prefect_local._WITHOUT.set(True)
    try:
        deployments.train(smoke_config)
    finally:
        prefect_local._WITHOUT.reset(token)
    assert received == [smoke_config]
