"""How Prefect behaves under our own command line: a patient start of its temporary server, no line a task."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.settings import (
    PREFECT_LOGGING_LEVEL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

STARTUP_SECONDS = 180
"""A busy machine needs far longer than Prefect's 20 seconds to start its temporary server."""


@contextmanager
def prefect_at_terminal() -> Iterator[None]:
    """Settings for a flow that a person started here; a server that PREFECT_API_URL names is used as it is."""
    changes = {
        PREFECT_LOGGING_LEVEL: "CRITICAL",
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTUP_SECONDS,
    }
    # The table of rounds says what Prefect's messages say, and errors reach the command line, which words them once.
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with temporary_settings(changes):
        yield
