"""Prefect's server for this machine: `python -m flows.server.guarded_server PORT`, or `fd N` for an open socket.

Prefect's own start accepts requests of any web page. Here a request must name this machine as its host, and if a page
sends it, the page must be of this server. The password is Prefect's: PREFECT_SERVER_API_AUTH_STRING.
"""

import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.runtime.user_environment import LOOPBACK_NAMES

LOOPBACK = LOOPBACK_NAMES[0]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

_GRACE_SECONDS = 5

_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""Of Prefect's pages: browsers then refuse requests to other hosts, such as those of its trackers."""

_FIRST_SCRIPT = b"""<script>
localStorage.setItem('prefect-show-promotional-content', 'false');
if (!localStorage.getItem('prefect-password')) {
  if (location.pathname !== '/login')
    location.replace('/login?redirect=' + encodeURIComponent(location.pathname));
  new MutationObserver(() => {
    const notice = document.querySelector('.p-toast__card');
    if (location.pathname === '/login' && notice && notice.textContent.includes('Something went wrong'))
      notice.querySelector('.p-toast__close-btn, button').click();
  }).observe(document, {childList: true, subtree: true});
}
</script>"""
"""First in Prefect's pages: before the first login they advertise, and report the missing password as an error."""


def own_pages_only(application: Application, port: int) -> Application:
    """Answer requests of other hosts or origins with 403, also for websockets; pages may load from this server only."""
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse

    async def guarded(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if not is_own(headers.getlist("host"), headers.getlist("origin"), port):
                await PlainTextResponse("refused: not a request of this server's pages\n", 403)(scope, receive, send)
                return
            # Compressed pages could not be changed, and nothing is gained on one machine.
            kept = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = {**scope, "headers": kept}
        await application(scope, receive, _QuietPages(send))

    return guarded


class _QuietPages:
    """Sends pages with a policy that forbids other hosts, and with our script."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        from starlette.datastructures import MutableHeaders

        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = _POLICY
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message  # its length changes
                return
        elif self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            start, self._start = self._start, None
            body = self._body.replace(b"<head>", b"<head>" + _FIRST_SCRIPT, 1)
            if self._body:  # not of a HEAD request
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
            await self._send(start)
            message = {**message, "body": body}
        await self._send(message)


def is_own(hosts: list[str], origins: list[str], port: int) -> bool:
    """Whether a request names this machine, and comes from no page or one of this server.

    A name of another domain can lead to 127.0.0.1, so the host counts. Its port may be another one: a tunnel's.

    >>> is_own(["127.0.0.1:4200"], [], 4200), is_own(["localhost:4200"], ["http://127.0.0.1:4200"], 4200)
    (True, True)
    >>> is_own(["evil.example:4200"], [], 4200), is_own(["localhost:4200"], ["http://evil.example"], 4200)
    (False, False)
    """
    if len(hosts) != 1 or _parts(f"//{hosts[0]}")[0] not in LOOPBACK_NAMES:
        return False
    return all(
        origin == f"http://{hosts[0]}" or (origin.startswith("http://") and _is_loopback(_parts(origin), port))
        for origin in origins
    )


def _is_loopback(parts: tuple[str | None, int | None], port: int) -> bool:
    return parts[0] in LOOPBACK_NAMES and parts[1] == port


def _parts(address: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(address)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def main() -> None:
    """Serve until SIGTERM."""
    import prefect
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    *kind, number = sys.argv[1:]
    listener = socket.socket(fileno=int(number)) if kind == ["fd"] else socket.create_server((LOOPBACK, int(number)))
    # The newer pages call a tracker at every start. Without their files, the others do not link to them.
    prefect.__ui_v2_static_path__ = Path(os.devnull) / "none"
    settings = get_current_settings().server
    port: int = listener.getsockname()[1]
    config = uvicorn.Config(
        own_pages_only(create_app(final=True), port),
        log_level="error",
        timeout_keep_alive=settings.api.keepalive_timeout,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
