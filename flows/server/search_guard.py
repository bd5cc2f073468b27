"""The guard of the search application: who may send a request, how large and how slow it may be, how many, until when.

Refusals are JSON with one sentence, `{"detail": ...}`, as those of the application.
"""

import asyncio
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi.datastructures import Headers
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse

from flows.server.guarded_server import Application, Message, Scope, Send, is_own
from flows.server.search_stop import Stop
from pipeline.runtime.user_environment import LOOPBACK_NAMES

COOKIE = "vireid-search"
API = "/api/"
LOGIN = "/api/login"
SEARCH = "/api/search"

_SMALL_BODY = 64 * 1024
_DRAINED = 4
"""A body that is too large is read up to this many times its limit, so that a browser shows the answer."""
_LATER = {"Retry-After": "2"}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of requests: bytes of a body, seconds until it is there, images of a query, waiting and retrieved ones.

    `pixels` is the sum over the images of a query.
    """

    body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    images: int = 16
    pixels: int = 128_000_000
    waiting: int = 8
    retrieved: int = 200


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server listens, and the token that a request needs (None: none, on loopback only).

    `session` is the value of the cookie that the page gets for the token.
    """

    host: str
    port: int
    token: str | None
    session: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def knows_host(self, headers: Headers) -> bool:
        """Whether a request names this machine, and comes from no page or one of this server.

        On loopback as Prefect's server. Else the host is an address or this machine's own name: a page of a foreign
        domain, whose name leads here, sends that name.
        """
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if self.host in LOOPBACK_NAMES:
            return is_own(hosts, origins, self.port)
        names = {*LOOPBACK_NAMES, self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        if len(hosts) != 1 or not (_name(hosts[0]) in names or _is_address(_name(hosts[0]))):
            return False
        return all(origin in (f"http://{hosts[0]}", f"https://{hosts[0]}") for origin in origins)

    def accepts(self, token: str) -> bool:
        """Whether a token is the right one; in constant time."""
        return self.token is not None and _is_same(token, self.token)

    def admits(self, request: HTTPConnection) -> bool:
        """Whether a request has the token, as `Authorization: Bearer TOKEN`, or the cookie of the page."""
        if self.token is None:
            return True
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.accepts(token.strip()):
            return True
        return _is_same(request.cookies.get(COOKIE, ""), self.session)


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine alone.

    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("0.0.0.0"), is_loopback("cam.example")
    (True, True, False, False)
    """
    try:
        return host in LOOPBACK_NAMES or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guarded(application: Application, access: Access, bounds: Bounds, stop: Stop) -> Application:
    """Check requests in this order: host and origin (403), token (401), free place (503), body (408, 413).

    A search holds a place until it is answered: one at the encoder and `bounds.waiting` others, so memory is bounded.
    The body is complete before the application sees the request. Requests that the stop cancels are answered with 503.
    """
    searches = _Places(1 + bounds.waiting)

    async def body_of(receive: Any, largest: int, limit: int) -> bytes | None:
        with stop.waiting():
            return await _read(receive, largest, _DRAINED * limit, bounds.body_seconds)

    async def checked(scope: Scope, receive: Any, send: Send) -> None:
        request, path = HTTPConnection(scope), scope["path"]
        largest = bounds.body_bytes if path == SEARCH else _SMALL_BODY
        if not access.knows_host(request.headers):
            await _refuse(403, "not a request of this server's page, or of a program that names this host")(send)
        elif path.startswith(API) and path != LOGIN and not access.admits(request):
            await _refuse(401, "the token is missing or wrong")(send)
        elif path == SEARCH and not searches.take():
            with suppress(TimeoutError, ConnectionError):
                await body_of(receive, 0, largest)
            await _refuse(503, "too many searches at once: repeat it", _LATER)(send)
        else:
            try:
                await _with_body(application, scope, receive, send, body_of, largest, bounds.body_seconds)
            finally:
                if path == SEARCH:
                    searches.give_back()

    async def answer(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await application(scope, receive, send)
            return
        safe = _SafeSend(send)
        try:
            await checked(scope, receive, safe)
        except asyncio.CancelledError:
            if not stop.begun:
                raise
            if not safe.begun:
                await _refuse(503, "the server stops: repeat it later", _LATER)(safe)

    return answer


class _Places:
    """A number of places, on one thread."""

    def __init__(self, count: int) -> None:
        self._free = count

    def take(self) -> bool:
        """Take a place if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """Leave a place that was taken."""
        self._free += 1


async def _with_body(
    application: Application,
    scope: Scope,
    receive: Any,
    send: Send,
    body_of: Callable[[Any, int, int], Awaitable[bytes | None]],
    largest: int,
    seconds: float,
) -> None:
    try:
        body = await body_of(receive, largest, largest)
    except TimeoutError:
        await _refuse(408, f"the body was not complete after {seconds:g} seconds")(send)
        return
    except ConnectionError:
        return
    if body is None:
        await _refuse(413, f"the body has more than {largest:,} bytes")(send)
        return
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}
    del body

    async def replay() -> Message:
        nonlocal message
        if message is None:
            return dict(await receive())  # waits until the client has gone
        first, message = message, None
        return first

    await application(scope, replay, send)


async def _read(receive: Any, largest: int, most: int, seconds: float) -> bytes | None:
    """The body of a request; None if it is larger, of which about `most` bytes are then read.

    Raises:
        TimeoutError: It was not complete in time.
        ConnectionError: The client closed the connection before.
    """
    parts, size = list[bytes](), 0
    async with asyncio.timeout(seconds):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            size += len(message.get("body", b""))
            if size > largest:
                parts.clear()
            else:
                parts.append(message.get("body", b""))
            if not message.get("more_body", False) or size > most:
                return None if size > largest else b"".join(parts)


def _refuse(status: int, reason: str, headers: dict[str, str] | None = None) -> Any:
    response = JSONResponse({"detail": reason}, status, headers=(headers or {}) | {"Connection": "close"})

    async def send_it(send: Send) -> None:
        await response({"type": "http"}, None, send)  # type: ignore[arg-type]

    return send_it


class _SafeSend:
    """Sends an answer with the headers that forbid other pages; `begun` is whether its first part was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        if message["type"] == "http.response.start":
            added = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)


def _name(host: str) -> str:
    """The name in a `Host` header, without the port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
