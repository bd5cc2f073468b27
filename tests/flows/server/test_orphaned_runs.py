"""Runs whose worker is gone: their processes are found and ended, and they are handed on."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelling, Completed, Running

from flows.server import orphaned_runs as left_runs
from flows.server.orphaned_runs import end_processes, processes_of_runs, resume_orphaned_runs
from flows.terminal_runs import HOST_TAG

API = "http://127.0.0.1:4299/api"
HERE = HOST_TAG + socket.gethostname()


@contextmanager
def process(code: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says `ready` and waits, with variables of its own."""
    command = [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\nimport time\ntime.sleep(600)"]
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


def of_run(run: UUID, api: str = API) -> dict[str, str]:
    return {"PREFECT__FLOW_RUN_ID": str(run), "PREFECT_API_URL": api}


def test_processes_are_found_by_run_and_server() -> None:
    one, other, elsewhere = uuid4(), uuid4(), uuid4()
    with (
        process("", of_run(one)) as first,
        process("", of_run(one, API + "/")) as second,
        process("", of_run(other)) as third,
        process("", of_run(elsewhere, "http://127.0.0.1:4298/api")),
        process("", {"PREFECT_API_URL": API}),
    ):
        found = {run: set(pids) for run, pids in processes_of_runs(API).items()}
    assert found == {one: {first.pid, second.pid}, other: {third.pid}}


@pytest.mark.parametrize(
    ("code", "grace", "ending"),
    [
        ("", 600.0, -15),
        ("import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0))", 600.0, 0),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0.2, -9),
        ("import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0))", 0.0, -9),
    ],
    ids=["is asked", "may clean up", "does not listen", "is not asked"],
)
def test_a_process_has_the_time_that_it_is_given(code: str, grace: float, ending: int) -> None:
    with process(code, os.environ) as child:
        end_processes([child.pid], grace)
        assert child.wait(0) == ending


def test_a_process_that_is_gone_already_is_no_error() -> None:
    with process("", os.environ) as child:
        child.kill()
        child.wait()
        end_processes([child.pid], grace_seconds=0.1)


@task(name="stage")
def stage() -> None:
    """A stage of a run."""


@flow(name="left")
def left() -> None:
    """A run of the pool."""


@pytest.fixture
def client(prefect_backend: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setattr(left_runs, "_RECORDING_SECONDS", 0.0)
    with get_client(sync_client=True) as talking:
        yield talking


@pytest.fixture
def run_in(client: SyncPrefectClient) -> Callable[[State, Sequence[str]], FlowRun]:
    """Make a run of a pool of the test's own, in a certain state and with certain tags."""
    pool = f"pool-{uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    deployment = client.create_deployment(client.create_flow(left), name="here", work_pool_name=pool)

    def make(state: State, tags: Sequence[str]) -> FlowRun:
        run = client.create_flow_run_from_deployment(deployment, tags=list(tags))
        client.set_flow_run_state(run.id, state, force=True)
        return client.read_flow_run(run.id)

    return make


def pool_of(run: FlowRun) -> str:
    assert run.work_pool_name is not None
    return run.work_pool_name


def state_of(client: SyncPrefectClient, run: FlowRun) -> tuple[StateType, str]:
    state = client.read_flow_run(run.id).state
    assert state is not None
    return state.type, state.name


def test_a_run_of_this_machine_goes_on_and_its_process_and_tasks_do_not(
    client: SyncPrefectClient, run_in: Callable[[State, Sequence[str]], FlowRun]
) -> None:
    run = run_in(Running(), ["demo", HERE])
    unfinished = client.create_task_run(stage, run.id, dynamic_key="1", state=Running())
    finished = client.create_task_run(stage, run.id, dynamic_key="0", state=Completed())
    with process("", of_run(run.id, str(client.api_url))) as child:
        assert resume_orphaned_runs(client, pool_of(run), "worker", grace_seconds=0) == 1
        assert child.wait(0) == -9
    assert state_of(client, run) == (StateType.SCHEDULED, "AwaitingRetry")
    states = [client.read_task_run(one.id).state for one in (unfinished, finished)]
    assert [state.type for state in states if state is not None] == [StateType.CRASHED, StateType.COMPLETED]


def test_a_run_that_was_being_cancelled_is_cancelled(
    client: SyncPrefectClient, run_in: Callable[[State, Sequence[str]], FlowRun]
) -> None:
    run = run_in(Cancelling(), [HERE])
    assert resume_orphaned_runs(client, pool_of(run), "worker", grace_seconds=0) == 0
    assert state_of(client, run) == (StateType.CANCELLED, "Cancelled")


@pytest.mark.parametrize(
    ("tags", "state", "expected"),
    [
        ([HOST_TAG + "another-machine"], Running(), "Running"),
        # A run that no machine has taken may have lost its worker before it began; ours is the only one of the pool.
        ([], Running(), "AwaitingRetry"),
        ([HERE], Completed(), "Completed"),
    ],
    ids=["of another machine", "of none yet", "finished"],
)
def test_only_unfinished_runs_of_this_machine_are_taken(
    tags: Sequence[str],
    state: State,
    expected: str,
    client: SyncPrefectClient,
    run_in: Callable[[State, Sequence[str]], FlowRun],
) -> None:
    run = run_in(state, tags)
    resume_orphaned_runs(client, pool_of(run), "worker", grace_seconds=0)
    assert state_of(client, run)[1] == expected


def test_a_run_without_a_machine_is_left_to_a_worker_elsewhere(
    client: SyncPrefectClient, run_in: Callable[[State, Sequence[str]], FlowRun]
) -> None:
    run = run_in(Running(), [])
    client.send_worker_heartbeat(pool_of(run), "elsewhere", heartbeat_interval_seconds=60)
    assert resume_orphaned_runs(client, pool_of(run), "worker", grace_seconds=0) == 0
    assert state_of(client, run)[1] == "Running"
    # Known by name: the worker that is ours may still be listed as alive.
    assert resume_orphaned_runs(client, pool_of(run), "elsewhere", grace_seconds=0) == 1


def test_runs_of_another_pool_are_not_looked_at(
    client: SyncPrefectClient, run_in: Callable[[State, Sequence[str]], FlowRun]
) -> None:
    run = run_in(Running(), [HERE])
    client.create_work_pool(WorkPoolCreate(name="another-pool", type="process"))
    assert resume_orphaned_runs(client, "another-pool", "worker", grace_seconds=0) == 0
    assert state_of(client, run)[1] == "Running"
