"""Folders that cannot be written, and proxies: what a command changes in its environment."""

import logging
import os
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.runtime.user_environment import NO_TELEMETRY, choose_interface, interface_to, prepare_environment

PROXY = "socks5://127.0.0.1:9"
FOLDERS = ("PREFECT_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME", "TORCH_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a temporary folder of the test's own; the environment is restored afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (*FOLDERS, "XDG_CONFIG_HOME", "no_proxy", "NO_PROXY", "OMP_WAIT_POLICY", *NO_TELEMETRY):
        os.environ.pop(name, None)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folder = tmp_path / "home"
    folder.mkdir()
    os.environ |= {"HOME": str(folder), "TMPDIR": str(tmp_path / "tmp")}
    return folder


def read_only(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """As for a user who is not root; root may write everywhere."""
    real = os.access

    def access(path: Path, mode: int) -> bool:
        return real(path, mode) and not (mode & os.W_OK and any(Path(path).is_relative_to(one) for one in folders))

    monkeypatch.setattr(os, "access", access)


def test_in_an_ordinary_environment_hosts_waiting_threads_and_no_telemetry_are_added(home: Path) -> None:
    before = dict(os.environ)
    prepare_environment()
    added = {name: value for name, value in os.environ.items() if before.get(name) != value}
    hosts = dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost,::1")
    telemetry = {
        "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }  # fmt: skip
    milvus = {"PYTHON_DOTENV_DISABLED": "1", "GRPC_VERBOSITY": "NONE"}
    assert added == hosts | {"OMP_WAIT_POLICY": "PASSIVE"} | telemetry | milvus
    assert list(home.iterdir()) == []


def test_hosts_that_the_user_excludes_from_the_proxy_stay_and_nothing_is_added_twice(home: Path) -> None:
    os.environ |= {"no_proxy": "inner.example, localhost", "NO_PROXY": ".lab", "ALL_PROXY": PROXY}
    prepare_environment()
    prepare_environment()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "inner.example,localhost,.lab,127.0.0.1,::1"
    assert os.environ["ALL_PROXY"] == PROXY


def test_a_user_who_lets_threads_spin_keeps_them_spinning(home: Path) -> None:
    os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("name", ["absent", "file", ""])
def test_a_home_that_is_no_folder_is_replaced_by_a_private_one(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setattr(os.path, "expanduser", lambda _: os.environ.get("HOME", "~"))
    os.environ["HOME"] = str(home / name) if name else ""
    prepare_environment()
    folder = Path(os.environ["HOME"])
    assert folder == home.parent / "tmp" / f"vireid-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not os.environ.keys() & FOLDERS


def test_a_home_that_cannot_be_written_keeps_its_downloads_and_nothing_else(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".cache" / "huggingface").mkdir(parents=True)
    read_only(monkeypatch, home)
    prepare_environment()
    folder = home.parent / "tmp" / f"vireid-{os.getuid()}"
    found = {name: os.environ.get(name) for name in FOLDERS}
    assert found == {
        "PREFECT_HOME": str(folder / "prefect"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "HF_HOME": str(home / ".cache" / "huggingface"),
        "TORCH_HOME": None,
    }
    assert os.environ["HOME"] == str(home)


def test_folders_that_the_user_has_chosen_stay_if_they_can_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: str(home.parent / "chosen" / name) for name in FOLDERS[:3]}
    os.environ |= chosen
    read_only(monkeypatch, home)
    prepare_environment()
    assert {name: os.environ[name] for name in chosen} == chosen
    assert not (home.parent / "tmp" / f"vireid-{os.getuid()}").exists()


def test_a_folder_that_the_user_has_chosen_and_cannot_write_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ["PREFECT_HOME"] = str(home / "file" / "prefect")
    (home / "file").touch()
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    prepare_environment()
    folder = home.parent / "tmp" / f"vireid-{os.getuid()}" / "prefect"
    assert os.environ["PREFECT_HOME"] == str(folder)
    assert f"PREFECT_HOME is {home / 'file' / 'prefect'}, which cannot be written: {folder} is used" in caplog.text


def test_another_user_cannot_prepare_the_private_folder(home: Path) -> None:
    (home.parent / "tmp" / f"vireid-{os.getuid()}").mkdir(mode=0o777)
    (home.parent / "tmp" / f"vireid-{os.getuid()}").chmod(0o777)
    os.environ["HOME"] = str(home / "absent")
    prepare_environment()
    folder = Path(os.environ["HOME"])
    assert folder.name != f"vireid-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_temporary_folder_that_does_not_exist_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ["TMPDIR"] = str(home / "absent")
    prepare_environment()
    assert os.environ["TMPDIR"] == str(home.parent / "tmp")

    def none() -> str:
        raise FileNotFoundError

    os.environ["TMPDIR"] = str(home / "absent")
    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(ConfigError, match="no temporary folder") as refused:
        prepare_environment()
    assert "TMPDIR" in refused.value.hint


def test_the_interface_is_that_of_the_way_to_a_host_unless_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interface_to("127.0.0.1") == "lo"
    assert interface_to("no such host") is None
    for given, used in (({}, "lo"), ({"GLOO_SOCKET_IFNAME": "eth7"}, "eth7")):
        monkeypatch.setattr(os, "environ", given)
        choose_interface("no such host")
        choose_interface("127.0.0.1")
        assert os.environ["GLOO_SOCKET_IFNAME"] == used
