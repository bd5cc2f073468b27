"""What do Prefect and MLflow cost? The rounds of a deployed run against the same stages as plain functions.

Both sides run the flow's own body, in turns, in this process: plain, and as a flow run of the server that `vireid
server` starts, with the limit of GPU tasks, the table of rounds as an artifact, and MLflow's database. Counted is the
time from the end of one round to the end of the next. Two sizes of drawn data show whether the difference grows with
the images. Prints seconds a round and writes `overhead.json`.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m benchmarks.overhead
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_LOGGING_LEVEL, temporary_settings

from benchmarks.clustering_machine import describe_machine
from flows.artifacts import reported
from flows.server.deploy import GPU_LIMIT
from flows.server.password import kept_password
from flows.tasks import run_as_task
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.data.synthetic.plan import Size
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.methods import train
from pipeline.runs.run import Run
from pipeline.runs.stages import Runner, Stage, stages_run_by

ROUNDS = 6
TARGET_SECONDS = 1.5
SIZES: tuple[Size, ...] = ("smoke", "demo")


def main(
    repeats: Annotated[int, typer.Option(help="Runs of each side at each size; of a round the median counts.")] = 3,
    out: Annotated[Path, typer.Option(help="The folder for overhead.json.")] = Path("benchmarks/results"),
) -> None:
    """Measure and print."""
    record: dict[str, Any] = {"machine": describe_machine(), "repeats": repeats, "rounds": ROUNDS, "sizes": {}}
    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "server"):
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, 1)
        for size in SIZES:
            folder = Path(name) / size
            generate_dataset(folder / "data", size=size, difficulty="easy", height=64, width=32, workers=1)
            record["sizes"][size] = measure(folder, repeats)
    report(record)
    (out / "overhead.json").write_text(json.dumps(record, indent=2) + "\n")


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of the rounds of both sides, from the second on: the first begins with what a run does once."""
    sides: dict[str, list[list[float]]] = {"plain": [], "deployed": []}
    images = 0
    for repeat in range(repeats):
        for side, run in (("plain", run_plain), ("deployed", run_deployed)):
            config = small(folder, f"{side}-{repeat}", tracking=side == "deployed")
            sides[side].append(intervals(run, config))
            images = images or count_images(folder / "data")
    fastest, usual = compared(sides, min), compared(sides, statistics.median)
    return {"images": images, "fastest": fastest, "usual": usual, "all_rounds": sides}


def compared(sides: Mapping[str, list[list[float]]], chosen: Callable[[Sequence[float]], float]) -> dict[str, float]:
    """Of each round's repetitions one is chosen; then the mean over rounds."""
    plain, deployed = (
        statistics.mean(chosen(found) for found in zip(*sides[side], strict=True)) for side in ("plain", "deployed")
    )
    return {"plain": plain, "deployed": deployed, "overhead": deployed - plain, "ratio": deployed / plain}


def small(folder: Path, name: str, *, tracking: bool) -> CclnetConfig:
    """Preset `smoke` with a tiny random network: rounds so short that nothing hides what is added to them."""
    values = {
        "model": {"architecture": "tiny", "weights": "random"},
        "stages": {"prepare_rounds": ROUNDS // 2, "clip_rounds": ROUNDS - ROUNDS // 2},
        "data": {"root": str(folder / "data")},
        "execution": {"device": "cpu", "runs_folder": str(folder / "runs"), "tracking": tracking},
    }
    config = load_config("smoke", (f"name={name}", "evaluation.every=1"), values)
    assert isinstance(config, CclnetConfig)
    return config


def intervals(run: Callable[[CclnetConfig, Callable[[], None]], object], config: CclnetConfig) -> list[float]:
    """Seconds between the ends of rounds."""
    ends: list[float] = []
    run(config, lambda: ends.append(time.perf_counter()))
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def noting(runner: Runner, ended: Callable[[], None]) -> Runner:
    """The same runner; of the stage that ends a round the end is noted."""

    def run_stage(stage: Stage[..., Any], run: Run[Any, Any], *values: Any) -> Any:
        result = runner(stage, run, *values)
        if stage.ends_round:
            ended()
        return result

    return run_stage


def run_plain(config: CclnetConfig, ended: Callable[[], None]) -> None:
    """Without flow engine and tracker."""
    with stages_run_by(noting(lambda stage, run, *values: stage.timed(run, *values), ended)):
        train(config)


def run_deployed(config: CclnetConfig, ended: Callable[[], None]) -> None:
    """As a flow run, with what a deployed one shows of itself."""

    @flow(name="overhead", persist_result=False, validate_parameters=False)
    def deployed() -> None:
        with reported(), stages_run_by(noting(run_as_task, ended)):
            train(config)

    deployed()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Run `vireid server` on ports that are free, and talk to it."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, mlflow_port = one.getsockname()[1], other.getsockname()[1]
    folder.mkdir(parents=True)
    arguments = ["server", "--port", str(port), "--mlflow-port", str(mlflow_port), "--runs", str(folder)]
    command = [sys.executable, "-c", "from flows.cli.app import main; main()", *arguments]
    api = f"http://127.0.0.1:{port}/api"
    with (folder / "log").open("wb") as output:
        server = subprocess.Popen(
            command, env=os.environ | {"PREFECT_HOME": str(folder / "prefect")}, stdout=output, stderr=output
        )
    try:
        while "ready" not in (folder / "log").read_text():
            if server.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.5)
        settings = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: kept_password(folder / "server")}
        with temporary_settings(settings | {PREFECT_LOGGING_LEVEL: "ERROR"}):
            assert httpx.get(f"{api}/health").is_success
            yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def count_images(folder: Path) -> int:
    """Files with pixels."""
    return sum(1 for path in folder.rglob("*") if path.suffix in (".jpg", ".png", ".bmp"))


def report(record: dict[str, Any]) -> None:
    """A line a size, and whether the targets are met."""
    for size, one in record["sizes"].items():
        usual = one["usual"]
        sys.stdout.write(
            f"{size}, {one['images']:,} images: plain {usual['plain']:.2f} s a round, deployed "
            f"{usual['deployed']:.2f} s: {usual['overhead']:.2f} s more, ratio {usual['ratio']:.2f}; "
            f"of the fastest repetitions {one['fastest']['overhead']:.2f} s more\n"
        )
    most = max(one["usual"]["overhead"] for one in record["sizes"].values())
    met = "met" if most <= TARGET_SECONDS else "missed"
    sys.stdout.write(f"target of {TARGET_SECONDS} s a round: {met}; {record['machine']}\n")


if __name__ == "__main__":
    typer.run(main)
