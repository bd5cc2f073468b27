"""Prefect's server, a worker and MLflow's server as child processes on this machine."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server.deploy import ensure_pool
from flows.server.orphaned_runs import resume_orphaned_runs
from pipeline.errors import ConfigError
from pipeline.runs.record import UI_VARIABLE

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

GRACE_SECONDS = 20.0
"""Time from SIGTERM to SIGKILL."""

_MAX_STARTS = 5  # a minute; a service that ends more often is not restarted
_MINUTE = 60.0


@dataclass(slots=True)
class Service:
    """A program in its own session, so that Ctrl-C at the terminal does not reach it.

    `environment` is added to that of this process, `log` receives its output, and the address `health` answers once it
    is ready (None for a program without address).
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    health: str | None = None
    _process: subprocess.Popen[bytes] | None = None
    _starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the program; `ConfigError` if it keeps ending by itself."""
        now = time.monotonic()
        self._starts = [start for start in self._starts if now - start < _MINUTE] + [now]
        if len(self._starts) > _MAX_STARTS:
            raise ConfigError(f"{self.name} ends again and again", hint=f"see its log, {self.log}")
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - programs of this environment
                self.command,
                env=os.environ | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has_died(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def is_ready(self) -> bool:
        """Whether it answers at `health`, or runs if it has no address."""
        if self.health is None:
            return not self.has_died()
        try:
            return httpx.get(self.health, timeout=5).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it and its child processes; a second call does nothing."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end: killing it", self.name)
        self._signal(signal.SIGKILL)  # remaining child processes
        self._process.wait()
        self._process = None

    def kill(self) -> bool:
        """Kill it, but not the processes of its flow runs, which have their own sessions. Returns whether it ran."""
        if self._process is None:
            return False
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        return True

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def wait_until_ready(service: Service, stopped: Callable[[float], bool], seconds: float) -> None:
    """Wait at most `seconds` for a started service to answer; `stopped(s)` waits s seconds for a stop signal.

    Raises:
        ConfigError: The service ended or took too long.
    """
    limit = time.monotonic() + seconds
    while not service.is_ready():
        if service.has_died() or time.monotonic() > limit:
            raise ConfigError(f"{service.name} does not start", hint=f"see its log, {service.log}")
        if stopped(0.2):
            return


def refuse_used_port(port: int, option: str) -> None:
    """Raise `ConfigError` if a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} is in use", hint=f"stop what uses it, or choose another one with {option}"
            ) from error


START_SECONDS = 180.0
"""Longest start of a server on a busy machine."""

_POLL_SECONDS = 0.5

_NO_TELEMETRY = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}

# Leases of the `gpu` limit are kept on disk: in memory they would be lost with the server, and their slots with them.
# Task states are written in batches once a second, events every 5 s: SQLite refuses a lease during other writes, and a
# task retries after 2 s only. Prefect truncates the interval to whole seconds.
_PREFECT_SERVER = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "1000",
}


def serve(port: int, mlflow_port: int, pool: str, runs: Path) -> None:
    """Run all services until a signal; one that ends by itself is restarted, and its flow runs are resumed.

    Args:
        port: Of Prefect's server.
        mlflow_port: Of MLflow's server.
        pool: The work pool; created unless it exists.
        runs: The folder of `mlflow.db`; logs are written to its folder `server`.

    Raises:
        ConfigError: A port is in use, or a service does not start.
    """
    refuse_used_port(port, "--port")
    refuse_used_port(mlflow_port, "--mlflow-port")
    (runs / "server").mkdir(parents=True, exist_ok=True)
    api, worker_name = f"http://{LOOPBACK}:{port}/api", socket.gethostname()
    *servers, worker = _services(runs, pool, worker_name, port, mlflow_port)
    with _stop_signals() as stopping, temporary_settings({PREFECT_API_URL: api}):
        try:
            for service in servers:
                service.start()
            for service in servers:
                wait_until_ready(service, stopping.wait, START_SECONDS)
            if not stopping.is_set():
                ensure_pool(pool)
                _resume_orphaned_runs(pool, worker_name, grace_seconds=0)
                worker.start()
                _log_addresses(api, port, mlflow_port, runs)
            while not stopping.wait(_POLL_SECONDS):
                _restart_ended([*servers, worker], worker, pool, worker_name)
        finally:
            logger.info("stopping; unfinished runs resume with the next start")
            if worker.kill():
                _resume_orphaned_runs(pool, worker_name, grace_seconds=GRACE_SECONDS)
            for service in reversed(servers):
                service.stop()


def _services(runs: Path, pool: str, worker: str, port: int, mlflow_port: int) -> list[Service]:
    folder, prefect = runs.resolve(), [sys.executable, "-m", "prefect"]
    pages = f"http://{LOOPBACK}:{mlflow_port}"
    server_command = [*prefect, "server", "start", "--host", LOOPBACK, "--port", str(port)]
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port)]
    mlflow += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    worker_command = [*prefect, "worker", "start", "--pool", pool, "--type", "process", "--name", worker]
    api = f"http://{LOOPBACK}:{port}/api"
    with_server = _NO_TELEMETRY | {"PREFECT_API_URL": api}
    return [
        Service(
            "Prefect's server",
            server_command,
            with_server | _PREFECT_SERVER,
            folder / "server" / "prefect.log",
            f"{api}/health",
        ),
        Service("MLflow", mlflow, _NO_TELEMETRY, folder / "server" / "mlflow.log", f"{pages}/health"),
        Service("the worker", worker_command, with_server | {UI_VARIABLE: pages}, folder / "server" / "worker.log"),
    ]


def _restart_ended(services: list[Service], worker: Service, pool: str, worker_name: str) -> None:
    """Restart services that ended by themselves; flow runs of a worker resume with the new one."""
    for service in services:
        if service.has_died():
            logger.warning("%s ended by itself: restarting it", service.name)
            if service is worker:
                _resume_orphaned_runs(pool, worker_name, grace_seconds=0)
            service.start()


def _resume_orphaned_runs(pool: str, worker_name: str, *, grace_seconds: float) -> None:
    try:
        with get_client(sync_client=True) as client:
            resume_orphaned_runs(client, pool, worker_name, grace_seconds=grace_seconds)
    except httpx.TransportError as error:
        logger.warning("Prefect's server did not answer about unfinished runs: %s", error)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _log_addresses(api: str, port: int, mlflow_port: int, runs: Path) -> None:
    logger.info("Prefect: http://%s:%d", LOOPBACK, port)
    logger.info('MLflow:  http://%s:%d (choose "Model training" at the top left)', LOOPBACK, mlflow_port)
    logger.info("logs:    %s", runs / "server")
    logger.info("in another terminal: export PREFECT_API_URL=%s, then make deploy", api)
    logger.info("ready; Ctrl-C stops everything")
