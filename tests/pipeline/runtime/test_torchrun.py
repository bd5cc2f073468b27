"""Variables of torchrun: only its own start counts, and what an older one has left is an error within seconds."""

import os
import socket

import pytest

from pipeline.errors import ConfigError
from pipeline.runtime import torchrun
from pipeline.runtime.torchrun import ranks_of_torchrun

RANKS = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}
STARTED = {**RANKS, "MASTER_PORT": "9", "TORCHELASTIC_RUN_ID": "none"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(torchrun, "_CONNECT_SECONDS", 0.0)


def test_variables_of_other_launchers_do_not_count() -> None:
    os.environ |= RANKS | {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}
    assert ranks_of_torchrun() is None


def test_torchrun_sets_the_number_of_ranks() -> None:
    os.environ |= STARTED
    assert ranks_of_torchrun() == 4
    with socket.create_server(("127.0.0.1", 0)) as store:
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.getsockname()[1])}
        torchrun._CONNECT_SECONDS = 5.0
        assert ranks_of_torchrun() == 4


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", [None, "", "four", "-1"])
def test_a_variable_that_is_missing_or_no_number_is_named(name: str, value: str | None) -> None:
    os.environ |= STARTED
    del os.environ[name]
    os.environ |= {} if value is None else {name: value}
    with pytest.raises(ConfigError, match=f"but {name} is {value or 'missing'}") as refused:
        ranks_of_torchrun()
    assert "TORCHELASTIC_RUN_ID" in refused.value.hint


def test_a_rendezvous_that_has_ended_is_an_error_and_no_wait_of_days() -> None:
    os.environ |= STARTED | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    with pytest.raises(ConfigError, match=r"does not answer at 127\.0\.0\.1:9"):
        ranks_of_torchrun()
