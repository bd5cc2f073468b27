"""`vireid deploy`: create work pool, GPU limit and deployments, and the steps that `prefect.yaml` names."""

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

from flows.prefect_local import answering
from pipeline.errors import ConfigError
from pipeline.runtime.user_environment import prepare_environment
from pipeline.secrets import clickable

POOL_VARIABLE = "VIREID_POOL"
"""The environment variable with the pool's name in `prefect.yaml`."""

GPU_LIMIT = "tag:gpu"
"""Prefect's name for the concurrency limit of tasks with the tag `gpu`."""

DEPLOYMENTS = "flows.deployments"
"""The module of the flows; it imports torch, so functions here import it only where they need it."""

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder of `prefect.yaml`, and the base of relative paths in parameters."""


def preset_values(preset: str) -> dict[str, Any]:
    """A build step of `prefect.yaml`: all current values of a preset, as its output `of_preset`."""
    from flows import deployments

    return {"of_preset": deployments.preset_changes(preset)}


def enter_checkout() -> dict[str, str]:
    """A pull step of `prefect.yaml`: change to the folder of this package on the worker's machine, and return it.

    It comes before the flow and torch are imported, so the environment is prepared here as by the command line.
    """
    prepare_environment()
    os.chdir(CHECKOUT)
    return {"directory": str(CHECKOUT)}


def ensure_pool(pool: str) -> None:
    """Create the work pool of processes unless it exists."""
    with answering(), get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))


def deploy_all(names: Sequence[str], pool: str, gpu_tasks: int | None) -> None:
    """Create or update the work pool, the limit of GPU tasks, and deployments.

    Args:
        names: Deployments, such as `unsupervised/demo`; all when empty.
        pool: The name of a work pool of processes.
        gpu_tasks: The largest number of concurrent GPU tasks; default: the number of GPUs here, at least 1.

    Raises:
        ConfigError: The server does not answer, or refuses a deployment.
    """
    from pipeline.runtime.device import count_gpus

    ensure_pool(pool)
    with answering(), get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, gpu_tasks or max(1, count_gpus()))
    # Prefect compares the whole entrypoint; of a pattern it would keep the part after the slash only.
    wanted = [part for name in names for part in ("--name", f"{DEPLOYMENTS}.{name}")] or ["--all"]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", *wanted]
    environment = os.environ | {POOL_VARIABLE: pool, "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=CHECKOUT, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # Prefect prints the address of the server with its password.
    sys.stdout.write(clickable(done.stdout.decode(errors="replace")))
    if done.returncode != 0:
        raise ConfigError("not everything could be deployed", hint="see Prefect's message above")
    with answering(), get_client(sync_client=True) as client:
        for name in names:
            _expect_deployment(client, name)


def _expect_deployment(client: SyncPrefectClient, name: str) -> None:
    """Raise `ConfigError` if a deployment does not exist: Prefect ignores unknown names among several."""
    try:
        client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError) as error:
        raise ConfigError(
            f"there is no deployment {name!r}", hint="`prefect.yaml` lists them; without a name all are deployed"
        ) from error
