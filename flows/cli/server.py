"""`vireid server`: Prefect's server, a worker and MLflow's pages at one terminal; `vireid deploy`: what it can run."""

from pathlib import Path
from typing import Annotated

import typer

POOL = "vireid"
"""The work pool where no other one is named."""

PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Prefect's server and pages.")]
MlflowPortOption = Annotated[int, typer.Option(min=1, max=65535, help="MLflow's pages.")]
PoolOption = Annotated[str, typer.Option(help="The work pool.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Where mlflow.db and the logs of the servers are kept.")]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(help="Deployments, such as unsupervised/demo; all when none is named.")
]
GpuTasksOption = Annotated[
    int | None, typer.Option(min=1, help="Tasks that may use GPUs at a time; one for each GPU when left out.")
]


def server(
    port: PortOption = 4200,
    mlflow_port: MlflowPortOption = 5000,
    pool: PoolOption = POOL,
    runs: RunsOption = Path("runs"),
) -> None:
    """Run Prefect's server, a worker and MLflow's pages on this machine alone, until Ctrl-C or SIGTERM."""
    from flows.server.serve import serve

    serve(port, mlflow_port, pool, runs)


def deploy(names: NamesArgument = None, pool: PoolOption = POOL, gpu_tasks: GpuTasksOption = None) -> None:
    """Tell the Prefect server that PREFECT_API_URL names what can be run; again after a preset has changed."""
    from flows.server.deploy import deploy_all

    deploy_all(names or (), pool, gpu_tasks)
