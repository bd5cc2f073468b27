"""Prefect under the command line: its temporary server or that at PREFECT_API_URL, and cancellation by Ctrl-C."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import httpx
import prefect
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_LEVEL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from prefect.states import Cancelled

from flows.prefect_store import expect_usable_store
from flows.proxies import refuse_unusable_proxies
from flows.server.temporary_server import temporary_server
from flows.terminal_runs import end_lost_runs, tags_of_this_process
from pipeline.errors import ConfigError, VireidError
from pipeline.runtime.signals import ending_signals_as_interrupt

logger = logging.getLogger(__name__)

MAX_RETRIES = 3
"""While a temporary server is restarted, its socket keeps requests waiting, so they are not repeated for minutes."""

_STOPPED = ("interrupt signal", "termination signal")
"""Parts of Prefect's message about a flow run that Ctrl-C or SIGTERM ended."""

_OWN_SERVER: ContextVar[bool] = ContextVar("own_server", default=False)
"""Whether Prefect's server is the temporary one, which only shows a run."""

_WITHOUT: ContextVar[bool] = ContextVar("without", default=False)
"""Whether flows run as plain functions, because the temporary server does not start."""


@contextmanager
def prefect_at_terminal() -> Iterator[None]:
    """Prefect settings for a flow of the command line; with PREFECT_API_URL, its server is used.

    Raises:
        KeyboardInterrupt: The user stopped the flow, even if Prefect could not report it.
        ConfigError: The server at PREFECT_API_URL does not answer.
    """
    # The table of rounds and the command line's error message replace Prefect's log lines.
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    url = PREFECT_API_URL.value()
    changes: dict[Any, Any] = {PREFECT_LOGGING_LEVEL: "CRITICAL", PREFECT_SERVER_ANALYTICS_ENABLED: False}
    if url is None:
        changes[PREFECT_CLIENT_MAX_RETRIES] = MAX_RETRIES
    refuse_unusable_proxies(url)
    try:
        with ExitStack() as stack:
            stack.enter_context(temporary_settings(changes))
            stack.enter_context(ending_signals_as_interrupt())
            if url is None:
                _enter_own_server(stack)
            else:
                expect_answer(url)
            if not _WITHOUT.get():
                with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
                    end_lost_runs(client)
            stack.enter_context(prefect.tags(*tags_of_this_process()))
            yield
    except httpx.TransportError as error:
        if _follows_interrupt(error):
            raise KeyboardInterrupt from error
        if url is not None:
            raise unreachable(url, error) from error
        raise


def with_or_without_prefect(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Run a flow; as a plain function if the temporary server does not start, or is lost and cannot be restarted."""
    if _WITHOUT.get():
        return _plainly(flow, parameters)
    try:
        return flow(**parameters)
    except (httpx.HTTPError, VireidError) as error:
        # A rank of several reports a lost server by an error of ours.
        lost = isinstance(error, httpx.HTTPError) or (_OWN_SERVER.get() and not _answers())
        if not lost or not _OWN_SERVER.get() or _follows_interrupt(error):
            raise
        logger.warning("Prefect's temporary server is lost (%s): the work resumes without it", type(error).__name__)
    _WITHOUT.set(True)
    return _plainly(flow, parameters)


def _plainly(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Call the function of a flow with the values that Prefect would give it, such as models instead of mappings."""
    return flow.fn(**flow.validate_parameters(dict(parameters)))


def _answers() -> bool:
    try:
        expect_answer(PREFECT_API_URL.value() or "")
    except ConfigError:
        return False
    return True


def _enter_own_server(stack: ExitStack) -> None:
    """Start the temporary server for the rest of `stack`; without one, flows run as plain functions."""
    without = False
    try:
        expect_usable_store()
        stack.enter_context(temporary_server())
    except ConfigError as error:
        logger.warning("%s; the work is done without it. %s", error.message, error.hint)
        without = True
    for variable, value in ((_OWN_SERVER, True), (_WITHOUT, without)):
        stack.callback(variable.reset, variable.set(value))


def cancelled_if_stopped(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - a hook's own
    """A flow hook: Prefect treats Ctrl-C and SIGTERM as a crash; this sets the state to cancelled."""
    if state.message is not None and any(words in state.message for words in _STOPPED):
        with get_client(sync_client=True) as client:
            stopped: State[Any] = Cancelled(message="stopped at the terminal; what was finished is kept")
            client.set_flow_run_state(flow_run.id, stopped, force=True)


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
        if error is None:
            try:
                client.request("GET", "/admin/version")  # unlike /health, with a password
            except httpx.HTTPStatusError as refused:
                error = refused
            except httpx.TransportError as lost:
                error = lost
    if isinstance(error, httpx.TransportError):
        raise unreachable(url, error) from error
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
        raise ConfigError(
            f"Prefect at {url} refuses the password",
            hint='export PREFECT_API_AUTH_STRING="$(cat runs/server/password)", with the RUNS of `make server`',
        ) from error


def unreachable(url: str, error: httpx.TransportError) -> ConfigError:
    """The error for a server that does not answer."""
    return ConfigError(
        f"Prefect at {url} does not answer ({type(error).__name__})",
        hint="start it with `make server`, correct PREFECT_API_URL, or unset it to run without a server",
    )
