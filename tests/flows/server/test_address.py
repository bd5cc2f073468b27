"""A Prefect server that is not named, or does not answer: one error with a hint, and exit code 1."""

from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_local import answering
from pipeline.errors import ConfigError
from tests.flows.command_line import Call, small

NOWHERE = "http://127.0.0.1:9/api"
"""Port 9 is for a service that no machine has offered in decades."""


def test_commands_for_a_server_say_that_none_is_named(vireid: Call) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        code, out, err = vireid("deploy")
    assert (code, out) == (1, "")
    assert "error: PREFECT_API_URL is not set" in err
    assert "hint:" in err and "make server" in err and "PREFECT_API_URL" in err


def test_deploying_to_a_server_that_does_not_answer_is_one_error(vireid: Call) -> None:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        code, out, err = vireid("deploy")
    assert (code, out) == (1, "")
    assert f"error: Prefect at {NOWHERE} does not answer (ConnectError)" in err
    assert err.count("hint:") == 1 and "Traceback" not in err


def test_training_where_the_named_server_does_not_answer_is_one_error(
    vireid: Call, smoke_data: Path, tmp_path: Path
) -> None:
    with temporary_settings({PREFECT_API_URL: NOWHERE}):
        code, out, err = vireid("train", "smoke", *small(tmp_path, smoke_data))
    assert (code, out) == (1, "")
    assert f"Prefect at {NOWHERE} does not answer" in err
    assert "unset it" in err and "Traceback" not in err
    assert not list(tmp_path.glob("*/checkpoint.pt"))


@pytest.mark.usefixtures("prefect_backend")
def test_a_server_that_falls_silent_is_the_same_error_and_others_pass() -> None:
    with pytest.raises(ConfigError, match="does not answer"), answering():
        raise httpx.ReadTimeout("late")
    with pytest.raises(ZeroDivisionError), answering():
        raise ZeroDivisionError
