"""Proxies in the environment: none for this machine, and those that httpx cannot use do not end a run."""

import os

import httpx
import pytest

from flows.proxies import refuse_unusable_proxies
from pipeline.errors import ConfigError
from pipeline.runtime.user_environment import prepare_environment

HERE = "http://127.0.0.1:4200/api"
SOCKS = "socks5://name:secret@127.0.0.1:9"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]


def proxy_of(url: str) -> httpx.URL | None:
    """The proxy that httpx would use."""
    with httpx.Client() as client:
        transport = client._transport_for_url(httpx.URL(url))
        pool = getattr(transport, "_pool", None)
        proxy = getattr(pool, "_proxy_url", None)
    return None if proxy is None else httpx.URL(bytes(proxy.host).decode())


@pytest.mark.parametrize(
    ("name", "proxy"),
    [
        ("HTTP_PROXY", "http://proxy.lab:3128"),
        ("http_proxy", "socks4://proxy.lab"),
        ("https_proxy", SOCKS),
        ("ALL_PROXY", "socks5h://[::1]:9"),
        ("all_proxy", "http://x:y"),
    ],
)
def test_this_machine_is_reached_without_a_proxy(name: str, proxy: str) -> None:
    os.environ |= {name: proxy, "no_proxy": "[::1],fe80::/10,.lab"}
    prepare_environment()
    refuse_unusable_proxies(None)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert proxy_of(f"http://{host}:4200/api") is None
    # Nothing evades the proxy: what cannot use it fails.
    scheme = "https" if "https" in name else "http"
    assert proxy_of(f"{scheme}://other.example/") is not None
    assert os.environ[name] == (proxy if proxy.startswith("http://proxy") else "http://127.0.0.1:9")


def test_a_proxy_that_can_be_used_stays() -> None:
    os.environ["ALL_PROXY"] = "http://proxy.lab:3128"
    refuse_unusable_proxies("http://prefect.lab/api")
    assert os.environ["ALL_PROXY"] == "http://proxy.lab:3128"


def test_a_server_elsewhere_behind_such_a_proxy_is_one_error_without_the_password() -> None:
    os.environ["ALL_PROXY"] = SOCKS
    with pytest.raises(ConfigError, match="the socks5 proxy of ALL_PROXY") as refused:
        refuse_unusable_proxies("http://prefect.lab:4200/api")
    assert "socksio" in refused.value.hint
    assert "secret" not in refused.value.message + refused.value.hint
    refuse_unusable_proxies(HERE)
