"""Debian's Chromium without a window, driven by its own protocol: pages, clicks, pictures, and every request."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--window-size=1280,900",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
    # No name is looked up; the requests of the page are recorded all the same.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0",
)  # fmt: skip

PATIENCE = 180.0
"""Seconds; less would make a busy machine a defect."""


class Browser:
    """One page. `requests` has the address of everything that it loads or sends."""

    def __init__(self, socket: ClientConnection) -> None:
        self.requests: list[str] = []
        self._socket = socket
        self._calls = 0
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that arrive meanwhile are kept."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": values}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            self._keep(message)
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return dict(message["result"])

    def _keep(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(message["params"]["url"])

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression of the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        limit = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < limit, f"{condition} is not true of this page: {self.text}"
            time.sleep(0.1)

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.wait(f"document.body && document.body.innerText.includes({json.dumps(text)})")

    @property
    def text(self) -> str:
        """What the page shows."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def click(self, selector: str, text: str = "") -> None:
        """Click the first element of a CSS selector that contains a text, once it exists."""
        found = (
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            f".find(one => one.textContent.includes({json.dumps(text)}))"
        )
        self.wait(found)
        self.run(f"{found}.click()")

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field, and type."""
        self.wait(f"document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def picture(self, file: Path, *, width: int = 1280, height: int = 900) -> None:
        """Save what the page looks like as PNG."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(0.5)
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def outside(self) -> list[str]:
        """Requests to other hosts than 127.0.0.1."""
        return [one for one in self.requests if urlsplit(one).hostname not in ("127.0.0.1", None)]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in a folder."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Browser(connect(_page_of(process, profile / "DevToolsActivePort"), max_size=None, proxy=None))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _page_of(process: "subprocess.Popen[bytes]", file: Path) -> str:
    """The address of the first page."""
    import httpx

    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        assert process.poll() is None, "chromium ended by itself"
        port = file.read_text().splitlines()[:1] if file.exists() else []
        if port:
            pages = httpx.get(f"http://127.0.0.1:{port[0]}/json", timeout=PATIENCE, trust_env=False).json()
            found = [page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"]
            if found:
                return str(found[0])
        time.sleep(0.1)
    raise AssertionError("chromium does not answer")
