"""Flow runs of the command line, tagged with machine and process: a killed one is ended by the next command."""

import os
import socket

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from pipeline.runtime.processes import running_process

HOST_TAG = "host:"
"""Prefix of the tag with the machine of a flow run."""

UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]

_PROCESS_TAG = "process:"
_GONE = "the process is gone"


def tags_of_this_process() -> list[str]:
    """Tags for a flow run of this process; none on a system without /proc."""
    process = _identity(os.getpid())
    return [] if process is None else [HOST_TAG + socket.gethostname(), _PROCESS_TAG + process]


def end_lost_runs(client: SyncPrefectClient) -> int:
    """Set unfinished flow runs of commands on this machine whose process is gone to Crashed; returns their number."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)),
            tags=FlowRunFilterTags(all_=[HOST_TAG + socket.gethostname()]),
        )
    )
    lost = [run for run in runs if _is_lost(run)]
    for run in lost:
        end_tasks(client, run)
        client.set_flow_run_state(run.id, Crashed(message=_GONE), force=True)
    return len(lost)


def end_tasks(client: SyncPrefectClient, run: FlowRun) -> None:
    """Set the unfinished tasks of a flow run whose process is gone to Crashed."""
    unfinished = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unfinished)),
    )
    for task in tasks:
        client.set_task_run_state(task.id, Crashed(message=_GONE), force=True)


def _is_lost(run: FlowRun) -> bool:
    processes = [tag.removeprefix(_PROCESS_TAG) for tag in run.tags if tag.startswith(_PROCESS_TAG)]
    return len(processes) == 1 and _identity(int(processes[0].partition("-")[0])) != processes[0]


def _identity(pid: int) -> str | None:
    """A process and the time of its start, which a later process with the same number does not share."""
    process = running_process(pid)
    return None if process is None else f"{pid}-{process.start}"
