"""Prefect's server for one command at the terminal: started with it, restarted if it dies, ended with it."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.events.worker import EventsWorker
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    get_current_settings,
    temporary_settings,
)

from flows.server.guarded_server import LOOPBACK
from flows.server.password import new_password
from flows.server.service import Service
from pipeline.errors import ConfigError
from pipeline.runtime.children import GroupWatch

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""Longest start on a busy machine."""

_LOG = "vireid-server.log"
_POLL_SECONDS = 0.2
_DRAIN_SECONDS = 10.0


@contextmanager
def temporary_server() -> Iterator[None]:
    """Let Prefect's clients inside the `with` block use a server of their own, with a random password.

    The socket stays open while a server that has died is restarted, so requests wait for the next one. A server that
    ends again and again is given up: requests are then refused.

    Raises:
        ConfigError: The server does not start; its log, in PREFECT_HOME, has the reason.
    """
    listener, watch, stopping = socket.create_server((LOOPBACK, 0)), GroupWatch(), threading.Event()
    api, password = f"http://{LOOPBACK}:{listener.getsockname()[1]}/api", new_password()
    service = _service(listener, watch, api, password)
    keeper = threading.Thread(target=_keep_running, args=(service, listener, stopping), daemon=True)
    try:
        _start(service)
        keeper.start()
        with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: password}):
            try:
                yield
            finally:
                EventsWorker.drain_all(timeout=_DRAIN_SECONDS)  # states of tasks
    finally:
        stopping.set()
        if keeper.is_alive():
            keeper.join()
        service.stop()
        watch.close()
        listener.close()


def _service(listener: socket.socket, watch: GroupWatch, api: str, password: str) -> Service:
    environment = get_current_settings().to_environment_variables(exclude_unset=True) | {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": api.removesuffix("/api"),
    }
    return Service(
        "Prefect's temporary server",
        [sys.executable, "-m", "flows.server.guarded_server", "fd", str(listener.fileno())],
        environment,
        PREFECT_HOME.value() / _LOG,
        f"{api}/health",
        listener,
        watch,
    )


def _start(service: Service) -> None:
    """Start the server and wait until it answers. Of two on a new database one dies, so it is started again."""
    try:
        service.log.parent.mkdir(parents=True, exist_ok=True)
        service.start()
    except OSError as error:
        raise ConfigError(
            f"{service.log.parent} cannot be used by Prefect: {error.strerror}",
            hint="set PREFECT_HOME to a folder that you can write to",
        ) from error
    limit = time.monotonic() + START_SECONDS
    while not service.is_ready():
        if service.has_died():
            service.start()
        if time.monotonic() > limit:
            raise ConfigError(f"{service.name} does not start", hint=f"see its log, {service.log}")
        time.sleep(_POLL_SECONDS)


def _keep_running(service: Service, listener: socket.socket, stopping: threading.Event) -> None:
    while not stopping.wait(_POLL_SECONDS):
        if service.has_died():
            logger.warning("%s ended by itself: restarting it", service.name)
            try:
                service.start()
            except ConfigError as error:
                logger.warning("%s; %s", error.message, error.hint)
                with suppress(OSError):
                    listener.close()
                return
