"""Prefect's server answers its own pages and programs that have the password."""

import os
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from flows.server.guarded_server import own_pages_only
from flows.server.password import kept_password, password_file
from pipeline.errors import ConfigError

PORT = 4200
OWN = f"127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def client() -> TestClient:
    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("yes")

    routes = [Route("/", lambda _: PlainTextResponse("yes")), WebSocketRoute("/events", answer)]
    return TestClient(own_pages_only(Starlette(routes=routes), PORT), base_url=f"http://{OWN}")


ACCEPTED = [
    {},
    {"host": "localhost"},
    {"host": "[::1]:4200"},
    {"host": "localhost:8080", "origin": "http://localhost:8080"},
    {"origin": f"http://{OWN}"},
    {"origin": "http://localhost:4200"},
]
REFUSED = [
    {"host": "evil.example"},
    {"host": "127.0.0.1.evil.example:4200"},
    {"host": "evil.example:4200", "origin": "http://evil.example:4200"},
    {"host": "192.168.0.7:4200"},
    {"host": "127.0.0.1:x"},
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:5000"},
    {"origin": "http://127.0.0.1"},
    {"origin": "https://127.0.0.1:4200"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:4200@evil.example"},
]


@pytest.mark.parametrize("headers", ACCEPTED, ids=str)
def test_programs_and_pages_of_this_server_are_answered(headers: dict[str, str], client: TestClient) -> None:
    assert client.get("/", headers=headers).text == "yes"
    with client.websocket_connect("/events", headers={"host": OWN} | headers) as socket:
        assert socket.receive_text() == "yes"


@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_other_hosts_and_pages_are_refused(headers: dict[str, str], client: TestClient) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert client.request(method, "/", headers=headers).status_code == 403
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/events", headers={"host": OWN} | headers),
    ):
        pass
    assert refused.value.status_code == 403


def test_pages_load_from_this_server_alone_and_do_not_advertise() -> None:
    page = b"<html><head><title>t</title></head></html>"
    routes = [
        Route("/page", lambda _: Response(page, media_type="text/html")),
        Route("/parts", lambda _: StreamingResponse(iter([page[:9], page[9:]]), media_type="text/html")),
        Route("/data", lambda _: PlainTextResponse("<head>")),
    ]
    compressing = Starlette(routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=1)])
    client = TestClient(own_pages_only(compressing, PORT), base_url=f"http://{OWN}")
    for path in ("/page", "/parts"):
        answer = client.get(path)
        assert answer.text.startswith("<html><head><script>\nlocalStorage.setItem('prefect-show-promotional-content'")
        assert answer.text.endswith("<title>t</title></head></html>")
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert client.head("/page").status_code == 200
    assert client.get("/data").text == "<head>"


def test_a_password_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        password = kept_password(tmp_path)
    finally:
        os.umask(before)
    file = password_file(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(password) > 30 and kept_password(tmp_path) == password
    # A copy or an editor has made it readable for others.
    file.chmod(0o644)
    assert kept_password(tmp_path) == password
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_password_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    file = password_file(tmp_path)
    file.touch()
    with pytest.raises(ConfigError, match="does not contain"):
        kept_password(tmp_path)
    file.write_bytes(b"\xff:\xff")
    with pytest.raises(ConfigError, match="not text"):
        kept_password(tmp_path)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        kept_password(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
