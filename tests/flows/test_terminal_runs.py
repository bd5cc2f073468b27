"""Flow runs of commands that were killed are ended by the next command; all others stay."""

import os
import socket
import subprocess

import pytest
from prefect import flow, tags, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from flows.terminal_runs import HOST_TAG, end_lost_runs, tags_of_this_process

HERE = HOST_TAG + socket.gethostname()

pytestmark = pytest.mark.usefixtures("prefect_backend")


@flow(name="unfinished")
def unfinished() -> None:
    """A flow whose runs are made here and never executed."""


@task
def step() -> None:
    """A task of it."""


def made(client: SyncPrefectClient, *given: str) -> FlowRun:
    with tags(*given):
        run = client.create_flow_run(unfinished, state=Running(), tags=given)
    client.create_task_run(step, run.id, dynamic_key="0", state=Running())
    return run


def test_runs_whose_process_is_gone_are_crashed_with_their_tasks() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    mine = tags_of_this_process()
    assert HERE in mine and any(tag.startswith(f"process:{os.getpid()}-") for tag in mine)
    with get_client(sync_client=True) as client:
        lost = [made(client, HERE, f"process:{ended.pid}-1"), made(client, HERE, f"process:{os.getpid()}-1")]
        kept = [made(client, *mine), made(client, HERE), made(client, HOST_TAG + "another", f"process:{ended.pid}-1")]
        assert end_lost_runs(client) == 2
        assert end_lost_runs(client) == 0
        assert [client.read_flow_run(run.id).state_name for run in lost] == ["Crashed"] * 2
        assert [client.read_flow_run(run.id).state_name for run in kept] == ["Running"] * 3
        tasks = client.read_task_runs()
        states = {one.flow_run_id: one.state_name for one in tasks}
        assert {states[run.id] for run in lost} == {"Crashed"} and {states[run.id] for run in kept} == {"Running"}
