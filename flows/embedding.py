"""The flow `embed`: a list of images in shards, each a task, here or as flow runs of the deployment's work pool."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from pydantic import Field

from flows.artifacts import show_features
from flows.guarded_flows import RETRIES, RETRY_SECONDS, guarded
from models.modality import Modality
from pipeline.config.datasets import DeepRange, Orientation
from pipeline.config.shared import UserPath
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import ConfigError, DataError
from pipeline.inference.embedded_files import embed_shard_once, expect_feature_name, shard_file
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.merged_features import merge_features
from pipeline.inference.run_encoder import open_encoder
from pipeline.runtime.device import PrecisionSetting
from pipeline.runtime.outputs import FEATURES, check_file
from pipeline.runtime.shards import Shard

POLL_SECONDS = 5.0
"""How often the state of a shard's flow run is read."""

Many = Annotated[int, Field(ge=1)]


@task(
    name="embed-shard", task_run_name="embed-shard-{shard}", cache_policy=NO_CACHE, persist_result=False, tags=("gpu",)
)
def embed_shard(
    encoder: TrainedEncoder, images: ImageList, out: Path, shard: Shard, batch_size: int, workers: int | None
) -> Path:
    """Write the file of a shard, unless it is there."""
    return embed_shard_once(encoder, images, out, shard, batch_size=batch_size, workers=workers)


@task(name="shard-on-pool", task_run_name="shard-on-pool-{shard}", cache_policy=NO_CACHE, persist_result=False)
def shard_on_pool(deployment: str, parameters: dict[str, Any], shard: Shard) -> None:
    """Start a flow run of the deployment for one shard, and wait for its end."""
    values = parameters | {"shard": str(shard)}
    run = cast(FlowRun, run_deployment(deployment, parameters=values, poll_interval=POLL_SECONDS))  # no coroutine here
    if run.state is None or not run.state.is_completed():
        state = "without a state" if run.state is None else f"as {run.state.name}: {run.state.message}"
        raise DataError(
            f"shard {shard} ended {state}", hint="correct the cause and start the flow again: finished shards are kept"
        )


@task(name="merge-shards", cache_policy=NO_CACHE, persist_result=False)
def merge_shards(out: Path, shards: list[Shard]) -> dict[str, Any]:
    """Merge the files of all shards, and remove them."""
    files = [shard_file(out, shard) for shard in shards]
    written = merge_features(out, files)
    for file in files:
        file.unlink()
    show_features(str(written), out)
    return written.to_dict()


@flow(
    name="embed",
    flow_run_name="{out.name}",
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def embed(
    run: str,
    images: UserPath,
    out: UserPath,
    shards: Many = 1,
    on_pool: bool = False,
    shard: str | None = None,
    modality: Literal["visible", "infrared"] | None = None,
    split: list[str] | None = None,
    root: UserPath | None = None,
    batch_size: Many = 64,
    device: str = "auto",
    precision: PrecisionSetting | None = None,
    orientation: Orientation | None = None,
    deep_range: DeepRange | None = None,
    workers: Many | None = None,
) -> dict[str, Any] | State[Any] | None:
    """Encode images to features, in shards; a repeated run skips finished shards.

    Args:
        run: A run's folder, its checkpoint, or a model of MLflow: models:/NAME/1.
        images: A folder, a manifest (.csv, .jsonl), a list of paths (.txt), or an image.
        out: The .npz or .parquet file to write; files of shards are beside it until they are merged.
        shards: Number of parts, each a task.
        on_pool: Run each shard as a flow run of this deployment, which any worker of the pool takes.
        shard: Only this part, such as 3/16, without a merge.
        modality: `visible` or `infrared`; selects rows of a manifest.
        split: Splits of a manifest, such as query.
        root: Base folder of paths in manifests and lists; default: the file's folder.
        batch_size: Images encoded at once.
        device: `auto` (a GPU if available), `cpu`, `cuda`, or `cuda:1`.
        precision: Of the network; default: that of the run, float32 on a CPU.
        orientation: Orientation tags of images: apply, or ignore; default: that of the run.
        deep_range: Black and white of images of more than 8 bits; default: that of the run.
        workers: Images decoded at once; default: one for each core.
    """
    parameters = {name: value for name, value in locals().items() if value is not None}

    def work() -> dict[str, Any] | None:
        expect_feature_name(out)
        check_file(out, FEATURES, "out", [images])
        parts = [Shard(number, shards) for number in range(1, shards + 1)] if shard is None else [Shard.parse(shard)]
        if on_pool and shard is None:
            _shards_on_pool({name: str(v) if isinstance(v, Path) else v for name, v in parameters.items()}, parts)
        else:
            listed = list_images(images, None if modality is None else Modality(modality), split or (), root)
            encoder = open_encoder(run, device, precision, orientation, deep_range)
            for part in parts:
                embed_shard(encoder, listed, out, part, batch_size, workers)
        return merge_shards(out, parts) if shard is None else None

    return guarded(work)


def _shards_on_pool(parameters: dict[str, Any], parts: list[Shard]) -> None:
    """Start all shards at a time: the pool's limit decides how many run. Raises the error of the first that failed."""
    deployment = _own_deployment()
    waiting = [shard_on_pool.submit(deployment, parameters, part) for part in parts]
    for future in waiting:
        future.wait()
    for future in waiting:
        future.result()


def _own_deployment() -> str:
    """The deployment of this flow run.

    Raises:
        ConfigError: There is none, or its pool runs one flow run at a time, which is this one.
    """
    context = FlowRunContext.get()
    flow_run = None if context is None else context.flow_run
    if flow_run is None or flow_run.deployment_id is None:
        raise ConfigError("on_pool needs a deployment", hint="start embed/images, or omit on_pool")
    with get_client(sync_client=True) as client:
        pool = client.read_deployment(flow_run.deployment_id).work_pool_name
        limit = None if pool is None else client.read_work_pool(pool).concurrency_limit
    if limit == 1:
        raise ConfigError(
            f"work pool {pool} runs one flow run at a time, which would wait for its own shards",
            hint=f"prefect work-pool set-concurrency-limit {pool} 2, or more; or omit on_pool",
        )
    return str(flow_run.deployment_id)
