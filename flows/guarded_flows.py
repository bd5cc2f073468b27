"""What every deployed flow does: artifacts, errors with hints, retries of transient errors only."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.context import FlowRunContext
from prefect.states import Failed

from flows.artifacts import reported, show_error
from flows.prefect_local import cancelled_if_stopped
from flows.terminal_runs import HOST_TAG
from pipeline.errors import VireidError

T = TypeVar("T")

RETRIES = 2
"""Retries of a deployed flow after an unknown or transient error."""

RETRY_SECONDS = 30


def guarded(work: Callable[[], T]) -> T | State[Any]:
    """Run the work of a flow; in a deployment publish artifacts, and do not retry after a permanent error."""
    context = FlowRunContext.get()
    if context is None or (context.flow is not None and cancelled_if_stopped in context.flow.on_crashed_hooks):
        return work()  # started from the command line
    assert context.flow_run is not None, "called by a flow"
    _tag_with_host()
    with reported():
        try:
            return work()
        except VireidError as error:
            with get_client(sync_client=True) as client:
                flow_run = client.read_flow_run(context.flow_run.id)
                show_error(error, flow_run.name)
                if error.transient and flow_run.run_count <= RETRIES:
                    raise
                policy = FlowRunPolicy(retries=0, retry_delay=0)
                client.update_flow_run(context.flow_run.id, empirical_policy=policy)
            return Failed(message=f"{error.message}\nhint: {error.hint}")


def _tag_with_host() -> None:
    """Add the machine's name to the flow run's tags, since a server recovers orphaned runs of its own machine only."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    kept = [tag for tag in context.flow_run.tags if not tag.startswith(HOST_TAG)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=[*kept, HOST_TAG + socket.gethostname()])
