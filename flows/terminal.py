"""How Prefect behaves under our own command line: a patient start of its temporary server, no line a task."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_LEVEL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from flows.server_address import unreachable

MAX_RETRIES = 2
"""Ctrl-C at a terminal ends the temporary server as well: reports to it must not be repeated for minutes."""

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
        with temporary_settings(changes):
            yield
    except httpx.TransportError as error:
        if _follows_interrupt(error):
            raise KeyboardInterrupt from error
        if url is not None:
            raise unreachable(url, error) from error
        raise


def _follows_interrupt(error: BaseException) -> bool:
    earlier: BaseException | None = error
    while earlier is not None and not isinstance(earlier, KeyboardInterrupt):
        earlier = earlier.__context__
    return earlier is not None
