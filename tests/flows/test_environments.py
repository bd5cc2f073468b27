"""`vireid train` where variables and folders are not those of an ordinary login: it trains, and leaves no process."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.flows.command_line import processes_with, small, vireid_command
from tests.fresh_process import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_home")]

MARK = "VIREID_ENVIRONMENT_TEST"

HTTP = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"), "http://127.0.0.1:9")
LAUNCHERS = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "3",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "other.example",
    "MASTER_PORT": "29500",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "7",
}
NO_FOLDERS: dict[str, str | None] = {
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "TMPDIR": "/proc/nothing",
    "HOME": "/proc/nobody",
    "PREFECT_HOME": None,
}


def environment_of(folder: Path, changes: dict[str, str | None]) -> dict[str, str]:
    """The test's environment with changes; a mark finds the processes that inherit it."""
    own = {"PREFECT_HOME": str(folder / "prefect"), MARK: str(folder), "PYTHONPATH": str(ROOT)}
    given = os.environ | own | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | changes
    without = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in given.items() if value is not None and name not in without}


def left_by(folder: Path) -> dict[int, str]:
    return processes_with(f"{MARK}={folder}")


def test_it_trains_with_a_socks_proxy_and_without_temporary_folder_and_home(smoke_data: Path, tmp_path: Path) -> None:
    command = vireid_command("train", "smoke", *small(tmp_path / "runs", smoke_data))
    done = subprocess.run(
        command,
        env=environment_of(tmp_path, NO_FOLDERS),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        umask=0o077,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert left_by(tmp_path) == {}
    private = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert [path.name for path in private if path.name != "lock"] == []


def test_it_trains_with_proxies_and_launchers_where_only_the_runs_folder_can_be_written(
    smoke_data: Path, tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("mounts need a name space of their own, which this user may not make")
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work, tmp_path / "tmp"):
        folder.mkdir()
    mounts = "for one in $LOCKED; do mount --bind $one $one && mount -o remount,ro,bind $one || exit 99; done"
    changes: dict[str, str | None] = {
        **HTTP,
        **LAUNCHERS,
        "LC_ALL": "C",
        "HOME": str(home),
        "TMPDIR": str(tmp_path / "tmp"),
        "PREFECT_HOME": None,
        "LOCKED": f"{home} {work} {ROOT}",
    }
    command = vireid_command("train", "smoke", *small(tmp_path / "runs", smoke_data))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts}; cd {work} && exec "$@"', "sh", *command],
        env=environment_of(tmp_path, changes),
        capture_output=True,
        text=True,
    )
    if done.returncode == 99:
        pytest.skip(f"folders cannot be mounted: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert left_by(tmp_path) == {}
    shutil.rmtree(tmp_path / "tmp")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL], ids=["hung-up", "killed"])
def test_a_signal_leaves_no_process(number: signal.Signals, smoke_data: Path, tmp_path: Path) -> None:
    command = vireid_command("train", "smoke", *small(tmp_path / "runs", smoke_data), "--processes", "2")
    command += ["--set", "stages.prepare_rounds=200"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment_of(tmp_path, {}),
            stdout=output,
            stderr=output,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # `nohup` ignores it
        )
    try:
        while not list((tmp_path / "runs").glob("*/metrics.jsonl")):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert any("guarded_server" in line for line in left_by(tmp_path).values())
        process.send_signal(number)
        code = process.wait()
        assert code == (-number if number == signal.SIGKILL else 128 + number), log.read_text()
        assert "Traceback" not in log.read_text()
        limit = time.monotonic() + 60  # the children of a killed process have ten seconds to end in order
        while left_by(tmp_path) and time.monotonic() < limit:
            time.sleep(0.2)
        assert left_by(tmp_path) == {}
    finally:
        for pid in left_by(tmp_path):
            os.kill(pid, signal.SIGKILL)
