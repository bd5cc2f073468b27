"""The process environment: no telemetry, no local proxy, threads that do not spin, folders for caches, interfaces."""

import logging
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_BYPASS = ("no_proxy", "NO_PROXY")
WAIT_POLICY = "PASSIVE"
"""OpenMP's threads sleep while they wait. Spinning ones keep the cores from other programs, and from each other."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",  # Prefect and Hugging Face; MLflow does not read it
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Libraries report nothing about their use to their makers."""

_MILVUS = {"PYTHON_DOTENV_DISABLED": "1", "GRPC_VERBOSITY": "NONE"}
"""pymilvus would read the variables of a file `.env` above its own folder, and gRPC prints lost connections."""


def prepare_environment() -> None:
    """Change `os.environ` for this process and its children; called before torch, Prefect and MLflow are imported.

    A missing TMPDIR or HOME is replaced. Where the home folder cannot be written, caches, Prefect's database and
    matplotlib's settings are kept in a private folder below the temporary folder. Variables that the user has set to
    folders that can be written stay, and OMP_WAIT_POLICY and those of telemetry and Milvus. Cost: a few system calls.

    Raises:
        ConfigError: No temporary folder can be written.
    """
    _bypass_proxies()
    for variable, value in {"OMP_WAIT_POLICY": WAIT_POLICY, **NO_TELEMETRY, **_MILVUS}.items():
        os.environ.setdefault(variable, value)
    if "TMPDIR" in os.environ and not _is_writable(Path(os.environ["TMPDIR"])):
        os.environ["TMPDIR"] = str(_temporary_folder())
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # an empty one would be the root folder
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises for a user without a home folder
    if not home.is_absolute() or not home.is_dir():
        home = _private_folder()
        os.environ["HOME"] = str(home)
    for variable, folder in _user_folders(home).items():
        chosen = Path(os.environ.get(variable) or folder)
        if not _can_be_made(chosen):
            _keep_downloads(variable, chosen)
            replacement = _private_folder() / folder.name.lstrip(".")
            if os.environ.get(variable):
                logger.warning("%s is %s, which cannot be written: %s is used", variable, chosen, replacement)
            os.environ[variable] = str(replacement)


def choose_interface(host: str) -> None:
    """Let gloo use the network interface by which this machine reaches a host, unless GLOO_SOCKET_IFNAME is set.

    Otherwise it takes that of this machine's name, which may be the loopback.
    """
    interface = interface_to(host)
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_to(host: str) -> str | None:
    """The network interface by which this machine reaches a host; None if there is no way to it."""
    import psutil

    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # chooses a way, and sends nothing
        own = probe.getsockname()[0]
        interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
        return next((name for name, has in interfaces.items() if own in [one.address for one in has]), None)
    return None


def _bypass_proxies() -> None:
    """Add this machine to the hosts without proxy, for all libraries: of both spellings some read only one."""
    known = [host.strip() for name in _BYPASS for host in os.environ.get(name, "").split(",")]
    hosts = dict.fromkeys([*filter(None, known), *LOOPBACK_NAMES])
    os.environ.update(dict.fromkeys(_BYPASS, ",".join(hosts)))


def _user_folders(home: Path) -> Mapping[str, Path]:
    """Environment variables of libraries, and their default folders."""
    return {
        "PREFECT_HOME": home / ".prefect",
        "XDG_CACHE_HOME": home / ".cache",
        "MPLCONFIGDIR": Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib",
    }


def _keep_downloads(variable: str, cache: Path) -> None:
    """Weights that were downloaded to a cache which is read-only now are still used."""
    if variable == "XDG_CACHE_HOME":
        for name, folder in {"HF_HOME": cache / "huggingface", "TORCH_HOME": cache / "torch"}.items():
            if os.access(folder, os.R_OK):
                os.environ.setdefault(name, str(folder))


def _can_be_made(folder: Path) -> bool:
    """Whether a folder can be written, or made in the nearest folder above it that exists."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return _is_writable(folder)


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _temporary_folder() -> Path:
    import tempfile  # imports a dozen modules, and is not needed where HOME and TMPDIR can be written

    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigError(
            "no temporary folder can be written", hint="set TMPDIR to a folder that you can write to"
        ) from error


def _private_folder() -> Path:
    """A folder of this user alone below the temporary folder; the same for later commands."""
    import tempfile

    folder = _temporary_folder() / f"vireid-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        pass  # another user's file of this name
    return Path(tempfile.mkdtemp(prefix="vireid-"))
