"""The process of `vireid serve`: a listening socket, its token, and a stop that leaves no request without an answer."""

import asyncio
import ipaddress
import secrets
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flows.server.search_app import Desk, search_application
from flows.server.search_guard import Access, Bounds, guarded, is_loopback
from flows.server.search_stop import Stop
from pipeline.data.image_files import without_pillow_warnings
from pipeline.errors import ConfigError
from pipeline.runtime.signals import ending_signals_call
from pipeline.runtime.text_files import read_text

_CONNECTIONS = 64
_IDLE_SECONDS = 5
_FIRST_REQUEST_SECONDS = 30.0
_STOP_SECONDS = 60
"""Longest wait for the search at the encoder after a signal."""
_SHORTEST_TOKEN = 16


def search_token(host: str, file: Path | None) -> str | None:
    """The token of a server: the content of a file; random without one; None on loopback, where none is needed.

    Raises:
        ConfigError: The file is missing, not text, has fewer than 16 characters or ones that no header can hold.
    """
    if file is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    token = read_text(file, kind="token file", origin="write a random text into it", error=ConfigError).strip()
    if len(token) < _SHORTEST_TOKEN or not all(33 <= ord(sign) <= 126 for sign in token):
        raise ConfigError(
            f"{file} has no token of at least {_SHORTEST_TOKEN} letters, digits and signs without blanks",
            hint="such as the output of: openssl rand -base64 24",
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one.

    Raises:
        ConfigError: The host is unknown or not of this machine, or the port cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        hint = "choose another --port, or 0 for a free one; --host names an address of this machine"
        raise ConfigError(f"{host}, port {port}, cannot be used: {error.strerror}", hint=hint) from error


def address_of(listener: socket.socket) -> str:
    """The address of the page; of a server on all addresses of this machine, by its name."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_search(desk: Desk, listener: socket.socket, host: str, token: str | None, bounds: Bounds) -> None:
    """Answer requests until SIGINT, SIGTERM or SIGHUP; then finish the search at the encoder, and answer others 503."""
    access, stop = Access(host, listener.getsockname()[1], token), Stop()
    application = guarded(search_application(desk, access, bounds, stop), access, bounds, stop)
    config = uvicorn.Config(
        application,
        http=_PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # no names of files
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    with without_pillow_warnings():
        _Server(config, stop).run(sockets=[listener])
    desk.conversions.log()


class _Server(uvicorn.Server):
    """Ends with SIGHUP too, and does not raise the signal again; a second Ctrl-C does not wait for requests."""

    def __init__(self, config: uvicorn.Config, stop: Stop) -> None:
        super().__init__(config)
        self._requests = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        self._requests.begin()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """See `uvicorn.Server`."""
        with ending_signals_call(self._stop):
            yield

    def _stop(self, number: int) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True


class _PatientProtocol(H11Protocol):
    """Closes a connection whose first request does not begin in time; uvicorn limits later ones only."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_FIRST_REQUEST_SECONDS, self._close_unused)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _close_unused(self) -> None:
        if getattr(self, "cycle", None) is None:  # uvicorn declares it as set
            self.transport.close()
