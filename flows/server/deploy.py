"""`vireid deploy`: everything that a Prefect server has to know once, and the steps that `prefect.yaml` names."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows import deployments as deployed
from flows.server.address import answering
from pipeline.errors import ConfigError
from pipeline.runtime.device import count_gpus

POOL_VARIABLE = "VIREID_POOL"
"""What `prefect.yaml` takes the pool's name from."""

GPU_LIMIT = "tag:gpu"
"""How Prefect names the limit of tasks with the tag `gpu`."""

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where `prefect.yaml` lies, and where relative paths in parameters start."""


def preset_values(preset: str) -> dict[str, Any]:
    """A build step of `prefect.yaml`: the parameter `config` of a deployment, taken from its preset as it is now.

    Args:
        preset: A name from `pipeline/config/presets`.

    Returns:
        The step's output `of_preset`.
    """
    return {"of_preset": deployed.preset_changes(preset)}


def enter_checkout() -> dict[str, str]:
    """A pull step of `prefect.yaml`: work where this package is installed from, wherever that is on a worker's machine.

    Returns:
        The step's output `directory`.
    """
    os.chdir(CHECKOUT)
    return {"directory": str(CHECKOUT)}


def ensure_pool(pool: str) -> None:
    """Create the work pool of processes unless it is there."""
    with answering(), get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))


def deploy_all(names: Sequence[str], pool: str, gpu_tasks: int | None) -> None:
    """Create the work pool and the limit of GPU tasks, then deployments; what is there is brought up to date.

    Args:
        names: Which, such as `unsupervised/demo`; all when empty.
        pool: The name of a work pool of processes.
        gpu_tasks: How many tasks may use GPUs at a time; one for each GPU of this machine when None, at least one.

    Raises:
        ConfigError: The server does not answer, or refuses a deployment.
    """
    ensure_pool(pool)
    with answering(), get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, gpu_tasks or max(1, count_gpus()))
    # Prefect looks for the whole entrypoint; of a pattern it would keep what stands after the stroke alone.
    wanted = [part for name in names for part in ("--name", f"{deployed.__name__}.{name}")] or ["--all"]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", *wanted]
    environment = os.environ | {POOL_VARIABLE: pool, "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, check=False)  # noqa: S603 - our own interpreter
    if done.returncode != 0:
        raise ConfigError("not everything could be deployed", hint="Prefect's message above says what it refused")
    with answering(), get_client(sync_client=True) as client:
        for name in names:
            _expect_deployment(client, name)


def _expect_deployment(client: SyncPrefectClient, name: str) -> None:
    """Of several names Prefect leaves out those that it does not know, and is content."""
    try:
        client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError) as error:
        raise ConfigError(
            f"there is no deployment {name!r}", hint="`prefect.yaml` names them all; without a name all are deployed"
        ) from error
