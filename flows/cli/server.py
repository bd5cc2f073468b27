"""`vireid server`: run Prefect's server, a worker and MLflow's server; `vireid deploy`: create deployments."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Output

POOL = "vireid"
"""The default work pool."""

PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's server.")]
MlflowPortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of MLflow's server.")]
PoolOption = Annotated[str, typer.Option(help="The work pool.")]
RunsOption = Annotated[
    Path, typer.Option("--runs", help="The folder of mlflow.db and the servers' logs."), Output("--runs")
]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(help="Deployments, such as unsupervised/demo.", show_default="all")
]
GpuTasksOption = Annotated[
    int | None, typer.Option(min=1, help="Largest number of concurrent GPU tasks.", show_default="one for each GPU")
]


def server(
    port: PortOption = 4200,
    mlflow_port: MlflowPortOption = 5000,
    pool: PoolOption = POOL,
    runs: RunsOption = Path("runs"),
) -> None:
    """Run Prefect's server, a worker and MLflow's server on this machine until Ctrl-C or SIGTERM."""
    from flows.server.serve import serve

    serve(port, mlflow_port, pool, runs)


def deploy(names: NamesArgument = None, pool: PoolOption = POOL, gpu_tasks: GpuTasksOption = None) -> None:
    """Create deployments on the Prefect server at PREFECT_API_URL; repeat it after changing a preset."""
    from flows.server.deploy import deploy_all

    deploy_all(names or (), pool, gpu_tasks)
