"""The temporary server of a command: for this command alone, restarted when it dies, never a reason to end a run."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows import prefect_local
from flows.prefect_local import prefect_at_terminal, with_or_without_prefect
from flows.server import service
from pipeline.errors import ConfigError, RankError
from tests.flows.command_line import processes_with


@flow(name="doubles", persist_result=False)
def doubles(number: int) -> tuple[int, str | None]:
    """Twice the number, and the identifier of the flow run."""
    return 2 * number, flow_run.get_id()


def servers() -> list[int]:
    password = PREFECT_API_AUTH_STRING.value()
    assert password
    return list(processes_with(f"PREFECT_SERVER_API_AUTH_STRING={password}"))


def kill_server() -> None:
    before = servers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    limit = time.monotonic() + 20
    while not set(servers()) - set(before) and time.monotonic() < limit:
        time.sleep(0.1)


@pytest.mark.slow
def test_it_answers_this_command_alone_and_is_restarted_and_replaced_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "_MAX_STARTS", 2)
    own = {PREFECT_HOME: tmp_path}
    with temporary_settings(own, restore_defaults={PREFECT_API_URL}), prefect_at_terminal():
        url, password = PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()
        assert url and password
        address, auth = f"{url}/flows/filter", tuple(password.split(":"))
        assert httpx.post(address, json={}).status_code == 401
        assert httpx.post(address, json={}, auth=auth).status_code == 200
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            assert httpx.post(address, json={}, auth=auth, headers=headers).status_code == 403

        kill_server()
        double, identifier = with_or_without_prefect(doubles, {"number": 2})
        assert double == 4
        with get_client(sync_client=True) as client:
            assert client.read_flow_run(UUID(identifier)).state_name == "Completed"

        kill_server()
        assert servers() == []
        monkeypatch.setattr(prefect_local, "MAX_RETRIES", 0)
        assert with_or_without_prefect(doubles, {"number": 3}) == (6, None)
        assert with_or_without_prefect(doubles, {"number": 4}) == (8, None)
    assert password.partition(":")[2] not in caplog.text + (tmp_path / "vireid-server.log").read_text()


def test_a_server_that_does_not_start_does_not_end_a_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def failing() -> Iterator[None]:
        raise ConfigError("Prefect's temporary server does not start", hint="see its log, prefect.log")
        yield

    monkeypatch.setattr(prefect_local, "temporary_server", failing)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_at_terminal():
        assert with_or_without_prefect(doubles, {"number": 3}) == (6, None)
    assert "see its log" in caplog.text


def test_an_error_of_a_rank_whose_server_is_lost_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def lost() -> Iterator[None]:
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            yield

    class Flow:
        fn = staticmethod(lambda: "plain")
        validate_parameters = staticmethod(dict)

        def __call__(self) -> None:
            raise RankError("process 0 of 2 ended with exit code 1", hint="repeat the command")

    monkeypatch.setattr(prefect_local, "temporary_server", lost)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_at_terminal():
        assert with_or_without_prefect(Flow(), {}) == "plain"


@pytest.mark.usefixtures("prefect_backend")
def test_with_a_server_of_the_user_a_lost_connection_is_an_error() -> None:
    @flow(name="loses", persist_result=False)
    def loses() -> None:
        raise httpx.ConnectError("lost")

    with pytest.raises(ConfigError, match="does not answer"), prefect_at_terminal():
        with_or_without_prefect(loses, {})
