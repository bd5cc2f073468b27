"""Prefect's server, a worker and MLflow's server as child processes on this machine."""

import logging
import shlex
import signal
import socket
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)

from flows.prefect_store import expect_usable_store
from flows.proxies import refuse_unusable_proxies
from flows.server.deploy import ensure_pool
from flows.server.guarded_server import LOOPBACK
from flows.server.orphaned_runs import resume_orphaned_runs
from flows.server.password import kept_password, password_file
from flows.server.service import GRACE_SECONDS, Service, refuse_used_port, wait_until_ready
from pipeline.errors import ConfigError
from pipeline.runs.record import UI_VARIABLE
from pipeline.runtime.children import GroupWatch
from pipeline.runtime.signals import ending_signals_call
from pipeline.runtime.user_environment import NO_TELEMETRY

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""Longest start of a server on a busy machine."""

_POLL_SECONDS = 0.5

_QUIET = NO_TELEMETRY | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

# Leases of the `gpu` limit are kept on disk: in memory they would be lost with the server, and their slots with them.
# Task states are written in batches once a second, events every 5 s: SQLite refuses a lease during other writes, and a
# task retries after 2 s only. Prefect truncates the interval to whole seconds.
_PREFECT_SERVER = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "1000",
    # The newer pages call a tracker on another host at every start, whatever analytics settings are.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def serve(port: int, mlflow_port: int, pool: str, runs: Path) -> None:
    """Run all services until a signal; one that ends by itself is restarted, and its flow runs are resumed.

    Prefect's server requires a password: PREFECT_SERVER_API_AUTH_STRING, else that of a file beside the logs.

    Args:
        port: Of Prefect's server.
        mlflow_port: Of MLflow's server.
        pool: The work pool; created unless it exists.
        runs: The folder of `mlflow.db`; logs are written to its folder `server`.

    Raises:
        ConfigError: A port is in use, a folder or Prefect's database cannot be used, or a service does not start.
        TrackingError: MLflow cannot use `mlflow.db`.
    """
    refuse_used_port(port, "--port")
    refuse_used_port(mlflow_port, "--mlflow-port")
    api, worker_name = f"http://{LOOPBACK}:{port}/api", socket.gethostname()
    refuse_unusable_proxies(api)
    folder = _log_folder(runs)
    pages = _prepare_stores(runs, f"http://{LOOPBACK}:{mlflow_port}")
    given = PREFECT_SERVER_API_AUTH_STRING.value()
    password = given or kept_password(folder)
    settings = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: password}
    stopping = threading.Event()
    with (
        ending_signals_call(lambda _: stopping.set()),
        temporary_settings(settings),
        closing(GroupWatch()) as watch,
    ):
        *servers, worker = _services(runs, pool, worker_name, (port, mlflow_port), password, watch)
        try:
            for service in servers:
                service.start()
            for service in servers:
                wait_until_ready(service, stopping.wait, START_SECONDS)
            if not stopping.is_set():
                ensure_pool(pool)
                _resume_orphaned_runs(pool, worker_name, grace_seconds=0)
                worker.start()
                _log_addresses(api, port, pages, folder, with_file=given is None)
            while not stopping.wait(_POLL_SECONDS):
                _restart_ended([*servers, worker], worker, pool, worker_name)
        finally:
            logger.info("stopping; unfinished runs resume with the next start")
            if worker.kill():
                _resume_orphaned_runs(pool, worker_name, grace_seconds=GRACE_SECONDS)
            for service in reversed(servers):
                service.stop()


def _log_folder(runs: Path) -> Path:
    folder = runs / "server"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made: {error.strerror}", hint="choose a folder that you can write to with --runs"
        ) from error
    return folder


def _prepare_stores(runs: Path, ui: str) -> str:
    """Refuse databases that the servers cannot use; a missing `mlflow.db` is made whole. Returns the page of runs."""
    expect_usable_store()
    from pipeline.tracking.store import page_of_runs, prepare_store  # takes seconds

    prepare_store(runs)
    return page_of_runs(runs, ui)


def _services(
    runs: Path, pool: str, worker: str, ports: tuple[int, int], password: str, watch: GroupWatch
) -> list[Service]:
    folder, (port, mlflow_port) = runs.resolve(), ports
    address, pages = (f"http://{LOOPBACK}:{number}" for number in ports)
    server_command = [sys.executable, "-m", "flows.server.guarded_server", str(port)]
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port)]
    mlflow += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    worker_command = [sys.executable, "-m", "prefect", "worker", "start"]
    worker_command += ["--pool", pool, "--type", "process", "--name", worker]
    api = f"{address}/api"
    with_server = _QUIET | {"PREFECT_API_URL": api}
    origins = f"{address},http://localhost:{port}"
    guarded = {"PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins}
    as_worker = {"PREFECT_API_AUTH_STRING": password, UI_VARIABLE: pages}
    logs = folder / "server"
    return [
        Service(
            "Prefect's server",
            server_command,
            with_server | _PREFECT_SERVER | guarded,
            logs / "prefect.log",
            f"{api}/health",
            watch=watch,
        ),
        Service("MLflow", mlflow, _QUIET, logs / "mlflow.log", f"{pages}/health", watch=watch),
        # Processes of its flow runs survive, and are ended with the next start.
        Service(
            "the worker",
            worker_command,
            with_server | as_worker,
            logs / "worker.log",
            watch=watch,
            lost_signal=signal.SIGKILL,
        ),
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


def _log_addresses(api: str, port: int, pages: str, folder: Path, *, with_file: bool) -> None:
    password = str(password_file(folder.resolve()))
    where = password if with_file else "PREFECT_SERVER_API_AUTH_STRING"
    logger.info("Prefect: http://%s:%d (password: %s)", LOOPBACK, port, where)
    logger.info("MLflow:  %s", pages)
    logger.info("logs:    %s", folder)
    exported = f'"$(cat {shlex.quote(password)})"' if with_file else '"$PREFECT_SERVER_API_AUTH_STRING"'
    logger.info(
        "in another terminal: export PREFECT_API_URL=%s PREFECT_API_AUTH_STRING=%s, then make deploy", api, exported
    )
    logger.info("ready; Ctrl-C stops everything")
