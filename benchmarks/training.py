"""How fast is training? Against code as it is published, against the device's own speed, and at SYSU-MM01's true size.

Both sides train on the same noise with the same settings, in turns: vireid's engine, and `benchmarks/plain_training.py`
(PIL transforms in worker processes, float32, a loop over memories, an assignment every step). The plain side's wait for
its first batch is left out, nothing of ours is. Figures are added to `training.json` as they are found, by device, so
that those of a CPU and of several GPUs stand side by side.

Run it from the top of the repository, on a machine that does nothing else. On two cores `--size sysu` takes about ten
minutes, and `--full` about as many more.

    OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2 python -m benchmarks.training --size demo
    python -m benchmarks.training --size sysu --full
    python -m benchmarks.training --table
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from benchmarks.clustering_machine import describe_machine
from benchmarks.training_inputs import Amount, SizeName, draw_task
from benchmarks.training_report import tables
from benchmarks.training_rounds import measure_round
from benchmarks.training_sides import Engine, PlainSide
from benchmarks.training_speed import image_flops, measure_speed
from pipeline.errors import ConfigError
from pipeline.runtime.device import resolve_device, resolve_precision, using_device
from pipeline.runtime.environment import peak_memory

Figures = dict[str, dict[str, dict[str, Any]]]


def main(
    size: Annotated[SizeName, typer.Option(help="Images, network and batch; tiny only tries the script.")] = "demo",
    full: Annotated[bool, typer.Option(help="Also every stage of a round at the data set's true size.")] = False,
    speed: Annotated[bool, typer.Option(help="Images per second, against the plain side.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="What vireid's network computes in.")
    ] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Let torch.compile make vireid's network.")] = False,
    repeats: Annotated[int, typer.Option(help="Measurements of each side; the median counts.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="After these, a comparison is not repeated.")] = 300.0,
    threads: Annotated[int, typer.Option(help="Of torch; 0 leaves them as they are.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Of the plain side; one a core if negative.")] = -1,
    steps: Annotated[int, typer.Option(help="Training steps of a repeat; 0 for what suits the device.", min=0)] = 0,
    table: Annotated[bool, typer.Option(help="Measure nothing: tables from what is recorded.")] = False,
    out: Annotated[Path, typer.Option(help="The folder for training.json.")] = Path("benchmarks/results"),
) -> None:
    """Measure and print."""
    record = out / "training.json"
    if not table:
        try:
            place = resolve_device(device)
            numbers = resolve_precision(precision, place)
        except ConfigError as error:
            raise typer.BadParameter(str(error)) from error
        if threads:
            torch.set_num_threads(threads)
        settings = {
            "device": str(place),
            "precision": numbers,
            "compile": compiled,
            "threads": torch.get_num_threads(),
            "workers": workers if workers >= 0 else os.cpu_count() or 1,
            "repeats": repeats,
            "plain_convolutions": "TF32" if place.type == "cuda" and numbers != "float32" else "float32",
        }
        row = f"{size}, {numbers}" + ", compiled" * compiled
        amount = Amount.of(size, place.type == "cuda", full).with_steps(steps)
        with using_device(place, numbers):  # the plain side gets the same cuDNN
            for part, found in measure(size, amount, place, settings, speed=speed, full=full, limit=seconds):
                add(record, name_of(place), row, {part: found | {"settings": settings, "machine": machine(place)}})
    sys.stdout.write(tables(read(record)))


def measure(
    size: SizeName,
    amount: Amount,
    device: torch.device,
    settings: dict[str, Any],
    *,
    speed: bool,
    full: bool,
    limit: float,
) -> Any:
    """The parts that are asked for, each as soon as it is there."""
    sys.stderr.write(f"{size}: drawing images\n")
    task = draw_task(size, amount.pool)
    flops = image_flops(task.encoder)
    engine = Engine(task, device, settings["precision"], settings["compile"])
    if speed:
        sys.stderr.write(f"{size}: speed, {amount.steps} steps and {amount.images:,} images a repeat\n")
        plain = PlainSide(task, device, settings["workers"])
        found = measure_speed(engine, plain, amount, repeats=settings["repeats"], limit=limit, flops=flops)
        del plain
        yield "speed", found | peak_memory()
    if full:
        sys.stderr.write(f"{size}: the stages of a round\n")
        yield "round", measure_round(engine, amount) | peak_memory()


def name_of(device: torch.device) -> str:
    """Under which a device's figures are recorded."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = describe_machine()
    return f"{described['processor']}, {described['cores']} cores"


def machine(device: torch.device) -> dict[str, Any]:
    """What figures depend on."""
    described = describe_machine(str(device))
    described["versions"] |= {"pillow": version("pillow")}
    return described


def read(record: Path) -> Figures:
    """What is recorded."""
    return json.loads(record.read_text()) if record.exists() else {}


def add(record: Path, device: str, row: str, parts: dict[str, Any]) -> None:
    """Put parts of a row into the record, whole, beside all that is there."""
    figures = read(record)
    found = figures.setdefault(device, {})
    found[row] = found.get(row, {}) | parts
    record.parent.mkdir(parents=True, exist_ok=True)
    unfinished = record.with_suffix(".tmp")
    unfinished.write_text(json.dumps(figures, indent=1) + "\n")
    unfinished.replace(record)


if __name__ == "__main__":
    typer.run(main)
