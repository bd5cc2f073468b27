"""Where Prefect's server is, and what is said where it does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipeline.errors import ConfigError


@contextmanager
def answering() -> Iterator[None]:
    """Let a server that does not answer inside the `with` block be one error with a hint.

    Raises:
        ConfigError: No server is named, or the one that is named does not answer.
    """
    url = PREFECT_API_URL.value()
    if url is None:
        raise ConfigError(
            "no Prefect server is named", hint="start one with `make server`, and set PREFECT_API_URL as it says"
        )
    expect_answer(url)
    try:
        yield
    except httpx.TransportError as error:
        raise unreachable(url, error) from error


def expect_answer(url: str) -> None:
    """Ask a server once whether it is there: Prefect's own requests are repeated for a minute before they fail.

    Raises:
        ConfigError: It does not answer.
    """
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True) as client,
    ):
        error = client.api_healthcheck()
    if isinstance(error, httpx.TransportError):
        raise unreachable(url, error) from error


def unreachable(url: str, error: httpx.TransportError) -> ConfigError:
    """The error of a server that does not answer."""
    return ConfigError(
        f"Prefect at {url} does not answer ({type(error).__name__})",
        hint="start it with `make server`, correct PREFECT_API_URL, or unset that to do without a server",
    )
