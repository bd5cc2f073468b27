"""Flows that a person has started: who stops one has cancelled it, whichever signal says so."""

import os
import signal
from collections.abc import Callable
from uuid import UUID

import pytest
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.deployments import FLOWS, at_terminal, train_splits
from flows.prefect_local import cancelled_if_stopped, prefect_at_terminal

pytestmark = pytest.mark.usefixtures("prefect_backend")


def last_state(end: Callable[[], None], error: type[BaseException]) -> tuple[str, str]:
    """Run a flow that ends in a certain way; gives name and message of the state that Prefect keeps."""
    identifiers: list[str] = []

    @flow(name="ends", persist_result=False, on_crashed=[cancelled_if_stopped])
    def ends() -> None:
        identifiers.append(str(flow_run.get_id()))
        end()

    with pytest.raises(error), prefect_at_terminal():
        ends()
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(identifiers[0])).state
    assert state is not None
    return state.name, state.message or ""


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "end",
    [interrupt, lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: os.kill(os.getpid(), signal.SIGHUP)],
    ids=["ctrl-c", "sigterm", "hang-up"],
)
def test_a_run_that_is_stopped_is_cancelled(end: Callable[[], None]) -> None:
    name, message = last_state(end, KeyboardInterrupt)
    assert name == "Cancelled"
    assert "what was finished is kept" in message


def test_a_run_that_breaks_down_is_not() -> None:
    def leave() -> None:
        raise SystemExit(3)

    assert last_state(leave, SystemExit)[0] == "Crashed"


@pytest.mark.parametrize("one", [*map(at_terminal, FLOWS), train_splits], ids=lambda one: one.name)
def test_every_flow_of_the_command_line_says_so(one: Flow[..., object]) -> None:
    assert one.on_crashed_hooks == [cancelled_if_stopped]


def test_outside_a_flow_sigterm_does_what_ctrl_c_does_and_afterwards_what_it_did() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), prefect_at_terminal():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
