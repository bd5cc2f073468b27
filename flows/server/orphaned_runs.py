"""Resume orphaned flow runs: end their processes, and schedule them for the next worker.

A killed worker leaves the processes of its runs alive, and no worker can cancel them; after a power failure runs stay
in state RUNNING for ever. A resumed run continues after its last finished round.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.states import AwaitingRetry, Cancelled

from flows.terminal_runs import HOST_TAG, UNFINISHED, end_tasks
from pipeline.runtime.processes import running_process

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1

_RECORDING_SECONDS = 2.0
"""Our server writes task states to its database within this time."""

_RUN_VARIABLE, _API_VARIABLE = "PREFECT__FLOW_RUN_ID", "PREFECT_API_URL"


def resume_orphaned_runs(client: SyncPrefectClient, pool: str, worker: str, *, grace_seconds: float) -> int:
    """End the processes of this machine's runs, and schedule the runs for the next worker. No worker may be running.

    Args:
        client: Of the server of the runs.
        pool: The work pool.
        worker: The name of this machine's worker.
        grace_seconds: Time for processes to end. If positive they record in Prefect and MLflow that they were stopped;
            0 is for a worker that starts at once.

    Returns:
        The number of resumed runs.
    """
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    alone = not _others(client, pool, worker)
    here = HOST_TAG + socket.gethostname()
    left = [run for run in runs if here in run.tags or (alone and not _has_host(run))]
    processes = processes_of_runs(str(client.api_url))
    end_processes([pid for run in left for pid in processes.get(run.id, ())], grace_seconds)
    if left:
        time.sleep(_RECORDING_SECONDS)
    for run in left:
        _settle(client, run)
    return sum(not _is_cancelling(run) for run in left)


def processes_of_runs(api_url: str) -> Mapping[UUID, Sequence[int]]:
    """Processes on this machine of flow runs of a server, found by their environment variables."""
    found: dict[UUID, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            content = (folder / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or belongs to another user
        entries = (entry.partition("=") for entry in content.decode(errors="replace").split("\0"))
        variables = {name: value for name, _, value in entries}
        if _RUN_VARIABLE in variables and variables.get(_API_VARIABLE, "").rstrip("/") == api_url.rstrip("/"):
            found.setdefault(UUID(variables[_RUN_VARIABLE]), []).append(int(folder.name))
    return found


def end_processes(pids: Sequence[int], grace_seconds: float) -> None:
    """Send SIGTERM if `grace_seconds` > 0, and SIGKILL after that time; returns when all processes are gone."""
    if grace_seconds > 0:
        for pid in pids:
            _send(pid, signal.SIGTERM)
    limit = time.monotonic() + grace_seconds
    while (alive := [pid for pid in pids if running_process(pid)]) and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
    for pid in alive:
        _send(pid, signal.SIGKILL)
    while any(running_process(pid) for pid in pids):
        time.sleep(_POLL_SECONDS)


def _settle(client: SyncPrefectClient, run: FlowRun) -> None:
    end_tasks(client, run)
    if _is_cancelling(run):
        client.set_flow_run_state(run.id, Cancelled(message="the process is gone"), force=True)
        return
    logger.info("flow run %s resumes with the next worker", run.name)
    message = "the worker was stopped or killed; resumes after the last finished round"
    client.set_flow_run_state(run.id, AwaitingRetry(message=message), force=True)


def _others(client: SyncPrefectClient, pool: str, worker: str) -> list[str]:
    workers = client.read_workers_for_work_pool(pool)
    return [other.name for other in workers if other.status == WorkerStatus.ONLINE and other.name != worker]


def _has_host(run: FlowRun) -> bool:
    return any(tag.startswith(HOST_TAG) for tag in run.tags)


def _is_cancelling(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_cancelling()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
