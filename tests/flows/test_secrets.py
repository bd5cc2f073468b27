"""Passwords of the environment are in no output and in no file of a run, whether it succeeds or fails."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.flows.command_line import small
from tests.flows.plain_runs import ROOT
from tests.flows.test_mlflow_outage import Server

SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "alice",
    "MLFLOW_TRACKING_PASSWORD": "pw-Mlf10w",
    "PREFECT_API_KEY": "pw-Pr3fectKey",
    "PREFECT_API_AUTH_STRING": "alice:pw-Pr3fectAuth",
    "AWS_SECRET_ACCESS_KEY": "pw-Aw5/Secret+Key",
    "HTTP_PROXY": "http://alice:pw-Pr0xy@127.0.0.1:9",
    "HTTPS_PROXY": "alice:pw-Pr0xy@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "VIREID_MLFLOW_UI": "http://alice:pw-Ui@127.0.0.1:5000",
}
PASSWORD = re.compile(rb"pw-\w+")


def call(arguments: Sequence[str], folder: Path, **variables: str) -> tuple[int, str]:
    """Exit code, and stdout with stderr, of a command in a process of its own."""
    environment = os.environ | SECRETS | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect")} | variables
    for name in ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        if name not in variables:
            environment.pop(name, None)
    program = "from flows.cli.app import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    output = done.stdout + done.stderr
    assert PASSWORD.findall(output) == [], output.decode(errors="replace")
    assert b"Traceback" not in output, output.decode(errors="replace")
    return done.returncode, output.decode()


def assert_no_password_in(folder: Path) -> None:
    found = [path for path in folder.rglob("*") if path.is_file() and PASSWORD.search(path.read_bytes())]
    assert found == []


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
def test_a_run_that_is_recorded_behind_a_password_and_cannot_be_recorded_again(
    smoke_data: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path)
    options = ["train", "smoke", *small(tmp_path / "runs", smoke_data)]
    options += ["--set", "execution.tracking=true"]
    address = f"http://alice:pw-Addre55@127.0.0.1:{server.port}"
    try:
        server.start()
        code, output = call(options, tmp_path, MLFLOW_TRACKING_URI=address)
        assert code == 0, output
        assert f"recording in MLflow at http://***@127.0.0.1:{server.port}" in output
        assert f"http://127.0.0.1:{server.port}/#/compare-runs" in output
    finally:
        server.kill()
    code, output = call(
        ["runs", "sync", str(next((tmp_path / "runs").glob("smoke-*")))], tmp_path, MLFLOW_TRACKING_URI=address
    )
    assert code == 1 and "http://***@" in output
    assert_no_password_in(tmp_path / "runs")


FAILURES = [
    ("MLFLOW_TRACKING_URI", "postgresql://alice:pw-Addre55@127.0.0.1:9/db", 1),
    ("PREFECT_API_URL", "http://alice:pw-Addre55@127.0.0.1:9/api?token=pw-T0ken", 1),
    # Done without Prefect, with a warning.
    ("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://alice:pw-Addre55@127.0.0.1:9/prefect", 0),
]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_home")
@pytest.mark.parametrize(("variable", "address", "expected"), FAILURES)
def test_an_address_that_fails(smoke_data: Path, tmp_path: Path, variable: str, address: str, expected: int) -> None:
    options = ["train", "smoke", *small(tmp_path / "runs", smoke_data), "--set", "execution.tracking=true"]
    code, output = call(options, tmp_path, **{variable: address})
    assert code == expected and "://***@127.0.0.1" in output
    assert_no_password_in(tmp_path)


def test_a_mistake_of_ours_is_printed_without_passwords(tmp_path: Path) -> None:
    program = (
        "import flows.cli.app as app\n"
        "def broken(): raise RuntimeError('http://alice:pw-Addre55@host')\n"
        "app.app = broken\n"
        "app.main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"RuntimeError: http://***@host" in done.stderr and not PASSWORD.search(done.stderr)
