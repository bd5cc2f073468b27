"""Prefect under the command line: its temporary server or that at PREFECT_API_URL, and cancellation by Ctrl-C."""

import contextvars
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_LEVEL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.states import Cancelled

from pipeline.errors import ConfigError

MAX_RETRIES = 2
"""A temporary server that has ended does not return, so requests to it are not repeated for minutes."""

_STOPPED = ("interrupt signal", "termination signal")
"""Parts of Prefect's message about a flow run that Ctrl-C or SIGTERM ended."""

STARTUP_SECONDS = 180
"""Prefect's default of 20 s is too short on a busy machine."""


@contextmanager
def prefect_at_terminal() -> Iterator[None]:
    """Prefect settings for a flow of the command line; with PREFECT_API_URL, its server is used.

    Raises:
        KeyboardInterrupt: The user stopped the flow, even if Prefect could not report it.
        ConfigError: The server at PREFECT_API_URL does not answer.
    """
    changes: dict[Any, Any] = {
        PREFECT_LOGGING_LEVEL: "CRITICAL",
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTUP_SECONDS,
    }
    # The table of rounds and the command line's error message replace Prefect's log lines.
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    url = PREFECT_API_URL.value()
    if url is None:
        changes[PREFECT_CLIENT_MAX_RETRIES] = MAX_RETRIES
    try:
        with temporary_settings(changes), _termination_as_interrupt():
            if url is None:
                _start_server_beyond_interrupts()
            else:
                expect_answer(url)
            yield
    except httpx.TransportError as error:
        if _follows_interrupt(error):
            raise KeyboardInterrupt from error
        if url is not None:
            raise unreachable(url, error) from error
        raise


def cancelled_if_stopped(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - a hook's own
    """A flow hook: Prefect treats Ctrl-C and SIGTERM as a crash; this sets the state to cancelled."""
    if state.message is not None and any(words in state.message for words in _STOPPED):
        with get_client(sync_client=True) as client:
            stopped: State[Any] = Cancelled(message="stopped at the terminal; what was finished is kept")
            client.set_flow_run_state(flow_run.id, stopped, force=True)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: close the run's record and end Prefect's temporary server."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _start_server_beyond_interrupts() -> None:
    """Start the temporary server so that Ctrl-C does not end it before it has recorded that the run was stopped.

    A process inherits the blocked signals of the thread that starts it, so another thread blocks SIGINT and starts it.
    """

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        # If it does not start, the flow's client raises.
        with suppress(RuntimeError, httpx.HTTPError), get_client(sync_client=True):
            pass

    thread = threading.Thread(target=contextvars.copy_context().run, args=(start,), daemon=True)
    thread.start()
    thread.join()


def _follows_interrupt(error: BaseException) -> bool:
    earlier: BaseException | None = error
    while earlier is not None and not isinstance(earlier, KeyboardInterrupt):
        earlier = earlier.__context__
    return earlier is not None


@contextmanager
def answering() -> Iterator[None]:
    """Turn connection errors inside the `with` block into a `ConfigError`; one also if PREFECT_API_URL is not set."""
    url = PREFECT_API_URL.value()
    if url is None:
        raise ConfigError(
            "PREFECT_API_URL is not set", hint="start a server with `make server`, which prints the address to set"
        )
    expect_answer(url)
    try:
        yield
    except httpx.TransportError as error:
        raise unreachable(url, error) from error


def expect_answer(url: str) -> None:
    """Raise `ConfigError` at once if a server does not answer: Prefect repeats requests for a minute."""
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True) as client,
    ):
        error = client.api_healthcheck()
    if isinstance(error, httpx.TransportError):
        raise unreachable(url, error) from error


def unreachable(url: str, error: httpx.TransportError) -> ConfigError:
    """The error for a server that does not answer."""
    return ConfigError(
        f"Prefect at {url} does not answer ({type(error).__name__})",
        hint="start it with `make server`, correct PREFECT_API_URL, or unset it to run without a server",
    )
