"""The command line: verbs that start flows and print results; errors are caught here, once."""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.config import ExperimentConfig
from pipeline.console import set_up_logging
from pipeline.errors import VireidError
from pipeline.evaluation.report import EvaluationReport
from pipeline.presets import load_config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the same person across visible and infrared cameras.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make data sets.")
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")

DEMO_DATA = Path("data") / "drawn-demo"

DataOption = Annotated[Path | None, typer.Option("--data", help="The folder that holds the data set.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change a value: section.key=value. May be given again.")
]
RunsOption = Annotated[Path | None, typer.Option("--runs", help="Where runs are kept.", show_default="runs")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or cuda:N.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def main() -> None:
    """Run the command line; a known error is one line with a hint, and exit code 1."""
    set_up_logging()
    try:
        app()
    except VireidError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"[bold red]error:[/] {_escape(error.message)}")
        console.print(f"[bold]hint:[/] {_escape(error.hint)}")
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the last finished round is kept, the same command goes on from there")
        sys.exit(130)


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="A preset, or the path of a .toml file.")],
    data: DataOption = None,
    changes: SetOption = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train without identities; an interrupted run of the same configuration goes on."""
    values: dict[str, Any] = {
        "data": {"root": _text(data)},
        "execution": {"device": device, "runs_folder": _text(runs)},
    }
    _run(load_config(preset, changes or (), values), as_json)


@app.command()
def demo(
    changes: SetOption = None, runs: RunsOption = None, device: DeviceOption = "auto", as_json: JsonOption = False
) -> None:
    """Draw the demonstration data set once, and train on it with the demonstration CLIP."""
    from pipeline.data.drawn.writer import draw_dataset

    config = load_config(
        "demo",
        changes or (),
        {"data": {"root": str(DEMO_DATA)}, "execution": {"device": device, "runs_folder": _text(runs)}},
    )
    if not DEMO_DATA.exists():
        # Seed 1 drew the people that were seen while the preset's schedule was chosen.
        draw_dataset(DEMO_DATA, size="demo", difficulty="moderate", seed=2)
    _run(config, as_json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    data: DataOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a run's last finished round again."""
    from flows.evaluate import evaluate_run
    from flows.terminal import prefect_at_terminal

    with prefect_at_terminal():
        report = evaluate_run(run, data_root=data, device=device)
    _print_report(report, as_json)


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    size: Annotated[str, typer.Option(help="smoke, demo, or large.")] = "demo",
    layout: Annotated[str, typer.Option(help="The data set whose layout is written.")] = "sysu",
    seed: Annotated[int, typer.Option(help="Other seeds draw other people.")] = 1,
    difficulty: Annotated[str, typer.Option(help="easy, moderate, default, or hard.")] = "default",
    height: Annotated[int | None, typer.Option(help="Rows of pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Columns of pixels.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that draw; one a core when left out.")] = None,
) -> None:
    """Draw a data set of people who do not exist."""
    from pipeline.data.drawn.writer import draw_dataset

    draw_dataset(
        out, size=size, layout=layout, seed=seed, difficulty=difficulty, height=height, width=width, workers=workers
    )


@app.command("demo-clip")
def demo_clip(
    minutes: Annotated[float, typer.Option(min=0.1, help="Time budget of the training.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Seed of weights and people.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Where the model folder is written; the shipped one when left out.")
    ] = None,
) -> None:
    """Train the demonstration CLIP on drawn people, and write its model card."""
    from models.clip import demo_clip_folder
    from pipeline.demo_clip.making import make_demo_clip

    make_demo_clip(out or demo_clip_folder(), minutes=minutes, seed=seed)


@config_app.command("show")
def config_show(
    preset: Annotated[str, typer.Argument(help="A preset, or the path of a .toml file.")], changes: SetOption = None
) -> None:
    """Print every value of a preset as JSON, with the digest that names its runs."""
    config = load_config(preset, changes or ())
    typer.echo(json.dumps({"digest": config.digest()} | config.record(), indent=2))


def _version(wanted: bool) -> None:
    if wanted:
        names = ("usl-vireid", "torch", "open_clip_torch", "scikit-learn", "faiss-cpu", "prefect", "mlflow")
        installed = {name: _installed_version(name) for name in names}
        typer.echo("\n".join(f"{name} {version}" for name, version in installed.items() if version))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print versions.")
    ] = False,
) -> None:
    """Options that stand before a verb."""


def _run(config: ExperimentConfig, as_json: bool) -> None:
    from flows.terminal import prefect_at_terminal
    from flows.unsupervised import unsupervised
    from pipeline.opening import run_path

    with prefect_at_terminal():
        report = unsupervised(config)
    if not as_json:
        _print_rounds(config)
    _print_report(report, as_json)
    folder = run_path(config)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"run: {folder}")
    if config.execution.tracking:
        console.print(f"compare rounds: make ui RUNS={config.execution.runs_folder}")


def _print_rounds(config: ExperimentConfig) -> None:
    """The table of all rounds; to stdout, where it is the result."""
    from pipeline.opening import run_path
    from pipeline.round_table import table
    from pipeline.run_folder import RunFolder

    with RunFolder.reopen(run_path(config)) as folder:
        rows, timings = folder.read_metrics(), folder.read_timings()
    seconds = [timing["seconds/total"] for timing in timings]
    _stdout().print(table(rows, seconds, _headline_search(config), f"{config.name}, seed {config.seed}"))


def _headline_search(config: ExperimentConfig) -> str:
    return f"{config.evaluation.searches[0]}/1-shot/agw"


def _print_report(report: EvaluationReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    notes = [
        report.data.kind + " data",
        f"weights: {report.model.weights}",
        f"round {report.model.round}",
        f"selection: {report.model.selection}",
    ]
    if report.data.partial:
        notes.append("partial data")
    result = Table(title="retrieval (" + ", ".join(notes) + ")", title_justify="left")
    for column in (
        "search",
        "direction",
        "Rank-1",
        "Rank-5",
        "Rank-10",
        "Rank-20",
        "mAP",
        "mINP",
        "queries",
        "gallery",
        "trials",
    ):
        result.add_column(column, justify="left" if column in ("search", "direction") else "right")
    for search in report.searches:
        mean = search.mean
        shares = (mean.r1, mean.r5, mean.r10, mean.r20, mean.map, mean.minp)
        counts = (f"{search.valid_queries} of {search.queries}", str(search.gallery), str(len(search.trials)))
        result.add_row(search.name, search.direction, *(f"{100 * share:.2f}" for share in shares), *counts)
    _stdout().print(result)


def _stdout() -> Console:
    """Where results go; a file or a pipe gets rows that are never wrapped."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
