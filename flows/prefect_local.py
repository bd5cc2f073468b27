"""How Prefect behaves under our own command line: a patient start of its temporary server, no line a task."""

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

from flows.server.address import expect_answer, unreachable

MAX_RETRIES = 2
"""A temporary server that is gone does not come back: reports to it must not be repeated for minutes."""

_STOPPED = ("interrupt signal", "termination signal")
"""What Prefect says of a flow run that Ctrl-C or SIGTERM has ended."""

STARTUP_SECONDS = 180
"""A busy machine needs far longer than Prefect's 20 seconds to start its temporary server."""


@contextmanager
def prefect_at_terminal() -> Iterator[None]:
    """Settings for a flow that a person started here; a server that PREFECT_API_URL names is used as it is.

    Raises:
        KeyboardInterrupt: The person stopped it, even where Prefect could no longer report that.
        ConfigError: The server that PREFECT_API_URL names does not answer.
    """
    changes: dict[Any, Any] = {
        PREFECT_LOGGING_LEVEL: "CRITICAL",
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTUP_SECONDS,
    }
    # The table of rounds says what Prefect's messages say, and errors reach the command line, which words them once.
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
    """A hook of our flows: who stops one at the terminal has cancelled it, which Prefect takes for a crash."""
    if state.message is not None and any(words in state.message for words in _STOPPED):
        with get_client(sync_client=True) as client:
            stopped: State[Any] = Cancelled(message="stopped at the terminal; what was finished is kept")
            client.set_flow_run_state(flow_run.id, stopped, force=True)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: the run's record is closed, and Prefect's temporary server ends with us."""
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
    """Start the temporary server so that Ctrl-C does not reach it: it is to learn from us that the run was stopped.

    A process inherits the blocked signals of the thread that starts it, and this thread has to be stopped by Ctrl-C.
    """

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        # Where it does not start, the flow's own client says so.
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
