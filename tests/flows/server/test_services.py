"""Programs that are started, waited for, given up and ended with all that they have started."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.server.guarded_server import LOOPBACK
from flows.server.service import Service, refuse_used_port, wait_until_ready
from pipeline.errors import ConfigError
from pipeline.runtime.processes import running_process
from tests.flows.command_line import Call

FOREVER = [sys.executable, "-c", "import time; time.sleep(600)"]
ENDS = [sys.executable, "-c", "print('I cannot')"]


def service(command: list[str], folder: Path, health: str | None = None) -> Service:
    return Service("the program", command, {}, folder / "log", health)


def never_stopped(seconds: float) -> bool:
    time.sleep(seconds / 10)
    return False


def wait_for(file: Path) -> str:
    while not (file.is_file() and file.read_text().endswith("\n")):
        time.sleep(0.02)
    return file.read_text()


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_program_ends_with_all_that_it_has_started(ending: str, tmp_path: Path) -> None:
    # The program starts another one, says which, and waits.
    code = "import subprocess, sys\np = subprocess.Popen(['sleep', '600'])\nprint(p.pid, flush=True)\np.wait()"
    one = service([sys.executable, "-c", code], tmp_path)
    one.start()
    child = int(wait_for(tmp_path / "log"))
    assert running_process(child) and one.is_ready() and not one.has_died()
    getattr(one, ending)()
    assert running_process(child) is None
    # Again, there is nothing to end.
    one.stop()
    assert one.kill() is False


def test_a_program_that_was_never_started_has_not_died(tmp_path: Path) -> None:
    assert not service(FOREVER, tmp_path).has_died()


def test_a_program_that_dies_before_it_answers_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    one = service(ENDS, tmp_path, health="http://127.0.0.1:9/health")
    one.start()
    with pytest.raises(ConfigError, match="the program does not start") as refused:
        wait_until_ready(one, never_stopped, seconds=60)
    assert str(tmp_path / "log") in refused.value.hint
    assert "I cannot" in wait_for(tmp_path / "log")


def test_a_program_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    one = service(FOREVER, tmp_path, health="http://127.0.0.1:9/health")
    one.start()
    try:
        with pytest.raises(ConfigError, match="does not start"):
            wait_until_ready(one, never_stopped, seconds=0.2)
    finally:
        one.stop()


def test_waiting_ends_when_everything_is_to_stop(tmp_path: Path) -> None:
    one = service(FOREVER, tmp_path, health="http://127.0.0.1:9/health")
    one.start()
    try:
        wait_until_ready(one, lambda _: True, seconds=600)
    finally:
        one.stop()


def test_a_program_is_given_up_after_it_has_died_five_times_in_a_minute(tmp_path: Path) -> None:
    one = service(["true"], tmp_path)
    for _ in range(5):
        one.start()
        while not one.has_died():
            time.sleep(0.01)
    with pytest.raises(ConfigError, match="ends again and again"):
        one.start()


def test_a_port_that_somebody_listens_on_is_refused_with_the_option_that_changes_it() -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        with pytest.raises(ConfigError, match="in use") as refused:
            refuse_used_port(listener.getsockname()[1], "--mlflow-port")
        assert "--mlflow-port" in refused.value.hint


def test_vireid_server_refuses_a_port_in_use_before_anything_is_started(vireid: Call, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        code, out, err = vireid("server", "--port", str(port), "--runs", str(tmp_path / "runs"))
    assert (code, out) == (1, "")
    assert f"port {port} is in use" in err and "hint:" in err and "--port" in err
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_at_the_terminal_does_not_reach_a_program(tmp_path: Path) -> None:
    one = service(FOREVER, tmp_path)
    one.start()
    try:
        (child,) = subprocess.run(
            ["pgrep", "--parent", str(os.getpid()), "--full", "time.sleep.600"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        # A terminal sends the signal to the group of its foreground programs: ours is another one.
        assert os.getpgid(int(child)) != os.getpgid(0)
    finally:
        one.stop()
