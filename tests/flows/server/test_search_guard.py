"""Who may search, how large and slow a request may be, and how many at once."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from jaxtyping import Float32, UInt8

from flows.server.search_app import search_application
from flows.server.search_guard import Access, Bounds, guarded, is_loopback
from flows.server.search_server import search_token
from flows.server.search_stop import Stop
from models.modality import Modality
from pipeline.errors import ConfigError
from tests.flows.server.search_desks import OWN, PORT, client_of, desk_of, png
from tests.pipeline.inference.mean_encoder import MeanEncoder

TOKEN = "correct-horse-battery-staple"
IMAGE = png((9, 9, 9))


class TestAccess:
    @pytest.mark.parametrize(
        "headers",
        [
            {"host": "evil.example"},
            {"host": f"127.0.0.1.evil.example:{PORT}"},
            {"host": "192.168.0.7"},
            {"origin": "http://evil.example"},
            {"origin": "null"},
        ],
        ids=str,
    )
    def test_other_hosts_and_pages_are_refused_on_loopback(self, headers: dict[str, str], tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path))
        for method, path in (
            ("GET", "/"),
            ("GET", "/api/images/0"),
            ("POST", "/api/search"),
            ("POST", "/api/feedback"),
        ):
            assert client.request(method, path, headers=headers).status_code == 403
        own = {"origin": f"http://localhost:{PORT}", "host": f"localhost:{PORT}"}
        assert client.post("/api/search", content=IMAGE, headers=own).status_code == 200

    def test_beyond_loopback_a_request_names_an_address_or_this_machine(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path), host="0.0.0.0", token=TOKEN)
        for host, status in (
            ("192.168.0.7:8123", 200), ("[fe80::1]:8123", 200), ("localhost", 200), ("evil.example", 403), ("", 403),
        ):  # fmt: skip
            assert client.get("/", headers={"host": host}).status_code == status, host
        assert client_of(desk_of(tmp_path), host="127.0.0.2").get("/", headers={"host": "127.0.0.2"}).status_code == 200
        same, other = {"host": "192.168.0.7:8123"}, "http://192.168.0.8:8123"
        assert client.get("/", headers=same | {"origin": "http://192.168.0.7:8123"}).status_code == 200
        assert client.get("/", headers=same | {"origin": other}).status_code == 403

    def test_without_the_token_nothing_of_the_gallery_is_shown(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path), token=TOKEN)
        for method, path in (
            ("GET", "/api/gallery"), ("GET", "/api/images/0"), ("POST", "/api/search"), ("POST", "/api/feedback"),
        ):  # fmt: skip
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": TOKEN},
                {"cookie": "vireid-search=x"},
            ):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401 and TOKEN not in answer.text
        assert client.get("/health").status_code == client.get("/").status_code == 200
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/api/search", content=IMAGE, headers=right).status_code == 200

    def test_the_page_gets_a_cookie_for_the_token_that_is_another_secret(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path), token=TOKEN)
        for wrong in ('""', '"wrong"', r'"\ud800"', f'"{TOKEN}x"'):
            assert client.post("/api/login", content=f'{{"token": {wrong}}}').status_code in (401, 422)
        answer = client.post("/api/login", json={"token": TOKEN})
        cookie = answer.headers["set-cookie"]
        assert answer.status_code == 204 and "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/gallery").status_code == 200

    def test_every_answer_forbids_other_hosts_and_other_pages(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path))
        for path in ("/", "/page.js", "/api/images/0", "/api/gallery", "/absent"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert (
                "unsafe" not in headers["content-security-policy"] and "http" not in headers["content-security-policy"]
            )
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")

    def test_tokens_of_files(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        assert search_token("127.0.0.1", None) is None
        random = search_token("0.0.0.0", None)
        assert random is not None and len(random) >= 32 and random != search_token("0.0.0.0", None)
        file.write_text(f"{TOKEN}\n")
        assert search_token("127.0.0.1", file) == TOKEN
        for bad in ("", "short", "with a blank in it, long enough", "ü" * 20):
            file.write_text(bad)
            with pytest.raises(ConfigError, match="token"):
                search_token("127.0.0.1", file)
        with pytest.raises(ConfigError, match="there is no token file"):
            search_token("127.0.0.1", tmp_path / "absent")

    def test_names_that_are_no_address_are_not_loopback(self) -> None:
        assert is_loopback("::1") and not is_loopback("127.0.0.1.example") and not is_loopback("")


class SlowEncoder(MeanEncoder):
    """Encodes when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.allowed = threading.Event(), threading.Event()
        self.at_once = self.most_at_once = 0

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """As `MeanEncoder`."""
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.begun.set()
        assert self.allowed.wait(60)
        self.at_once -= 1
        return super().encode(pixels, modality)


def application(folder: Path, encoder: MeanEncoder, bounds: Bounds, stop: Stop | None = None) -> Any:
    access, stop = Access("127.0.0.1", PORT, None), stop or Stop()
    return guarded(search_application(desk_of(folder, encoder), access, bounds, stop), access, bounds, stop)


def test_one_search_is_at_the_encoder_some_wait_and_others_are_refused(tmp_path: Path) -> None:
    encoder = SlowEncoder()
    encoder.allowed.set()  # for the index
    app = application(tmp_path, encoder, Bounds(waiting=2))
    encoder.allowed.clear()
    encoder.begun.clear()

    async def all_at_once() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
            accepted = [asyncio.create_task(client.post("/api/search", content=IMAGE)) for _ in range(3)]
            await asyncio.to_thread(encoder.begun.wait, 60)
            await asyncio.sleep(0)
            refused = await client.post("/api/search", content=IMAGE)
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
            assert (await client.get("/health")).status_code == 200  # and other requests are answered meanwhile
            assert (await client.get("/api/images/0")).status_code == 200
            encoder.allowed.set()
            assert [(await one).status_code for one in accepted] == [200] * 3
            assert (await client.post("/api/search", content=IMAGE)).status_code == 200  # places are given back

    asyncio.run(all_at_once())
    assert encoder.most_at_once == 1


def test_a_stop_answers_waiting_requests_at_once_and_finishes_the_search_at_the_encoder(tmp_path: Path) -> None:
    encoder, stop = SlowEncoder(), Stop()
    encoder.allowed.set()  # for the index
    app = application(tmp_path, encoder, Bounds(), stop)
    encoder.allowed.clear()
    encoder.begun.clear()

    async def slow_body() -> Any:
        yield b"x"
        await asyncio.Event().wait()

    async def all_at_once() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
            first = asyncio.create_task(client.post("/api/search", content=IMAGE))
            await asyncio.to_thread(encoder.begun.wait, 60)
            waiting = [asyncio.create_task(client.post("/api/search", content=IMAGE)) for _ in range(3)]
            waiting.append(asyncio.create_task(client.post("/api/search", content=slow_body())))
            await asyncio.sleep(0.05)
            stop.begin()
            for one in [*(await asyncio.gather(*waiting)), await client.post("/api/search", content=IMAGE)]:
                assert one.status_code == 503 and int(one.headers["retry-after"]) > 0
                assert one.json() == {"detail": "the server stops: repeat it later"}
                assert "default-src 'none'" in one.headers["content-security-policy"]
            assert not first.done()
            encoder.allowed.set()
            assert (await first).status_code == 200

    asyncio.run(all_at_once())
    assert encoder.encoded == 5  # four images of the gallery, and one query


def test_a_search_that_the_stop_does_not_wait_for_is_answered_without_an_error(tmp_path: Path) -> None:
    encoder, stop = SlowEncoder(), Stop()
    encoder.allowed.set()  # for the index
    app = application(tmp_path, encoder, Bounds(), stop)
    encoder.allowed.clear()

    async def cancelled() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
            for begun in (False, True):
                encoder.begun.clear()
                request = asyncio.create_task(client.post("/api/search", content=IMAGE))
                await asyncio.to_thread(encoder.begun.wait, 60)
                if begun:
                    stop.begin()
                request.cancel()  # as uvicorn when its patience ends
                if begun:
                    assert (await request).status_code == 503
                else:  # another cancellation than that of the stop is not caught
                    with pytest.raises(asyncio.CancelledError):
                        await request
                    encoder.allowed.set()
                    await asyncio.sleep(0.05)
                    encoder.allowed.clear()
            encoder.allowed.set()

    asyncio.run(cancelled())


def test_a_body_that_is_not_complete_in_time_frees_its_place(tmp_path: Path) -> None:
    app = application(tmp_path, MeanEncoder(), Bounds(waiting=0, body_seconds=0.05))

    async def slowly() -> None:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/api/search", "query_string": b"", "http_version": "1.1",
            "headers": [(b"host", f"127.0.0.1:{PORT}".encode())],
        }  # fmt: skip
        await app(scope, receive, send)
        assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]

        async def gone() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        sent.clear()
        await app(scope, gone, send)
        assert sent == []  # nobody is left to read an answer
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=OWN) as client:
            assert (await client.post("/api/search", content=IMAGE)).status_code == 200

    asyncio.run(slowly())
