"""Proxies of the environment that Prefect's client cannot use, though it needs none for this machine."""

import logging
import os
from urllib.parse import urlsplit

import httpx

from pipeline.errors import ConfigError
from pipeline.runtime.user_environment import LOOPBACK_NAMES

logger = logging.getLogger(__name__)

_NAMES = ("http_proxy", "https_proxy", "all_proxy")

_CLOSED = f"http://{LOOPBACK_NAMES[0]}:9"
"""No program listens on this port: requests to other machines fail, and do not evade the proxy."""


def refuse_unusable_proxies(url: str | None) -> None:
    """Change proxy variables of this process that httpx cannot use: it would fail for this machine's servers, too.

    SOCKS needs the package socksio, and httpx knows neither socks4 nor every notation of NO_PROXY.

    Args:
        url: Of the Prefect server that is used; None for one on this machine.

    Raises:
        ConfigError: The server is on another machine, so a proxy is needed.
    """
    set_names = [name for name in os.environ if name.lower() in _NAMES and os.environ[name]]
    if not set_names or _builds():
        return
    unusable = [name for name in set_names if not _builds(os.environ[name])]
    scheme = urlsplit(os.environ[unusable[0]]).scheme if unusable else ""
    if unusable and url is not None and urlsplit(url).hostname not in LOOPBACK_NAMES:
        raise ConfigError(
            f"the {scheme} proxy of {unusable[0]} cannot be used to reach Prefect at {urlsplit(url).hostname}",
            hint="install socksio for a socks5 proxy, or set an http proxy",
        )
    if unusable:
        logger.warning(
            "the %s proxy of %s cannot be used; requests to other machines through it fail", scheme, unusable[0]
        )
        os.environ.update(dict.fromkeys(unusable, _CLOSED))
    if not _builds():
        os.environ.update(dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(LOOPBACK_NAMES)))


def _builds(proxy: str | None = None) -> bool:
    """Whether httpx accepts a proxy; without one, whether it accepts the environment."""
    try:
        if proxy is None:
            httpx.Client().close()
        else:
            httpx.Client(proxy=proxy if "://" in proxy else f"http://{proxy}", trust_env=False).close()
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True
