"""Prefect's server, a worker and MLflow's pages as one program, on this machine alone."""

import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server.deploy import ensure_pool
from flows.server.orphaned_runs import resume_orphaned_runs
from flows.server.services import GRACE_SECONDS, LOOPBACK, Service, refuse_used_port, wait_until_ready
from pipeline.runs.record import UI_VARIABLE

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""A busy machine needs long to start a server."""

_POLL_SECONDS = 0.5

# No part of this calls home.
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}

# Leases of the `gpu` limit are kept on disk: in memory they would be lost with the server, and their places with them.
# States of tasks are written together, once a second, and events every five: SQLite refuses a task its place while
# another writes, and the task asks again only after two seconds. Prefect cuts the interval to a whole number.
_PREFECT_SERVER = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "1000",
}


def serve(port: int, mlflow_port: int, pool: str, runs: Path) -> None:
    """Run everything until a signal says to stop; what dies is started again, and its runs go on.

    Args:
        port: Of Prefect's server and pages.
        mlflow_port: Of MLflow's pages.
        pool: The work pool; created unless it is there.
        runs: Where `mlflow.db` lies; the logs of all three go into a folder below.

    Raises:
        ConfigError: A port is in use, or a program does not start.
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
                _say_where(api, port, mlflow_port, runs)
            while not stopping.wait(_POLL_SECONDS):
                _revive([*servers, worker], worker, pool, worker_name)
        finally:
            logger.info("stopping; runs that are not finished go on with the next start")
            if worker.kill():
                _resume_orphaned_runs(pool, worker_name, grace_seconds=GRACE_SECONDS)
            for service in reversed(servers):
                service.stop()


def _services(runs: Path, pool: str, worker: str, port: int, mlflow_port: int) -> list[Service]:
    """The server, MLflow's pages, and last the worker."""
    folder, prefect = runs.resolve(), [sys.executable, "-m", "prefect"]
    pages = f"http://{LOOPBACK}:{mlflow_port}"
    server_command = [*prefect, "server", "start", "--host", LOOPBACK, "--port", str(port)]
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port)]
    mlflow += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    worker_command = [*prefect, "worker", "start", "--pool", pool, "--type", "process", "--name", worker]
    api = f"http://{LOOPBACK}:{port}/api"
    with_server = _QUIET | {"PREFECT_API_URL": api}
    return [
        Service(
            "Prefect's server",
            server_command,
            with_server | _PREFECT_SERVER,
            folder / "server" / "prefect.log",
            f"{api}/health",
        ),
        Service("MLflow", mlflow, _QUIET, folder / "server" / "mlflow.log", f"{pages}/health"),
        Service("the worker", worker_command, with_server | {UI_VARIABLE: pages}, folder / "server" / "worker.log"),
    ]


def _revive(services: list[Service], worker: Service, pool: str, worker_name: str) -> None:
    """Start again what has died; runs of a worker that died go on with the new one."""
    for service in services:
        if service.has_died():
            logger.warning("%s has ended by itself: it is started again", service.name)
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
    """An event that Ctrl-C, SIGTERM and a closed terminal set; a program in the background may ignore the first."""
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


def _say_where(api: str, port: int, mlflow_port: int, runs: Path) -> None:
    logger.info("Prefect: http://%s:%d", LOOPBACK, port)
    logger.info('MLflow:  http://%s:%d (choose "Model training" at the top left)', LOOPBACK, mlflow_port)
    logger.info("logs:    %s", runs / "server")
    logger.info("at another terminal: export PREFECT_API_URL=%s, then make deploy", api)
    logger.info("ready; Ctrl-C stops everything")
