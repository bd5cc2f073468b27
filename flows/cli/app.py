"""The command line `vireid`: commands that start flows and print results. Errors are caught here, once."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.caption import caption, caption_merge
from flows.cli.compare import compare
from flows.cli.config import config_app
from flows.cli.data import data_app
from flows.cli.encoder import embed, embed_merge, export
from flows.cli.features import label, rank
from flows.cli.feedback import count_marks_of, feedback, print_marks
from flows.cli.forget import forget
from flows.cli.look import look
from flows.cli.options import (
    Commands,
    JsonOption,
    ManifestRootOption,
    Output,
    PerQueryOption,
    SetOption,
    SkipOption,
    check_outputs_of,
    renamed,
)
from flows.cli.printing import print_average, print_json, print_line, print_note, print_report, print_result, stdout
from flows.cli.runs import runs_app
from flows.cli.search import calibrate, search
from flows.cli.serve import serve
from flows.cli.server import deploy, server
from flows.cli.table import numbers_of, table
from flows.demo_data import DEMO_DATA, draw_demo_once
from pipeline.config.datasets import options_of
from pipeline.config.experiment import CONFIGS, method_name
from pipeline.console import plain_console, print_error, set_up_logging
from pipeline.errors import ConfigError, DataError, VireidError
from pipeline.runtime.outputs import FEATURES
from pipeline.runtime.signals import ending_signals_as_interrupt
from pipeline.runtime.torchrun import ranks_of_torchrun
from pipeline.runtime.user_environment import prepare_environment
from pipeline.secrets import print_masked

if TYPE_CHECKING:
    from pipeline.config.experiment import AnyConfig
    from pipeline.evaluation.report import EvaluationReport

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the same person across visible and infrared cameras.",
)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(runs_app, name="runs")
for command in (
    rank, label, compare, table, look, embed, embed_merge, search, calibrate, serve, feedback, export, forget,
    caption, caption_merge, server, deploy,
):  # fmt: skip
    app.command()(command)

INTERRUPTED = 130
"""Typer's exit code after Ctrl-C."""

SIGNALLED = 128
"""Exit code after a signal, less its number."""

DataOption = Annotated[Path | None, typer.Option("--data", help="The folder that holds the data set.")]
RunsOption = Annotated[
    Path | None, typer.Option("--runs", help="Where runs are kept.", show_default="runs"), Output("--runs")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, or cuda:N.", show_default="the preset's")
]


def main() -> None:
    """Run the command line; a `VireidError` is printed with its hint, with exit code 1. Passwords are masked."""
    set_up_logging()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    console = plain_console(stderr=True)
    with ending_signals_as_interrupt() as received:
        try:
            with _system_errors():
                prepare_environment()
                app()
        except VireidError as error:
            print_error(error)
            sys.exit(1)
        except SystemExit as leaving:
            if leaving.code != INTERRUPTED:
                raise
            with suppress(OSError):  # the terminal is closed
                console.print("stopped; finished work is kept, the same command resumes it")
            sys.exit(SIGNALLED + received[0] if received else INTERRUPTED)
        except Exception:
            sys.excepthook = print_masked  # a mistake of ours: Python prints its trace
            raise


@contextmanager
def _system_errors() -> Iterator[None]:
    """Turn errors of files and memory that no command has turned into a `VireidError`."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        reason = f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}"
        raise DataError(reason, hint="check that path and its permissions, and the space on its disk") from error
    except MemoryError as error:
        raise DataError("the memory is too small for this command", hint="give it fewer or smaller files") from error


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="A preset, or the path of a .toml file.")],
    data: DataOption = None,
    changes: SetOption = None,
    splits: Annotated[
        str | None, typer.Option(help="Splits of RegDB, such as 1-10: a model for each, and their mean.")
    ] = None,
    _trials: Annotated[str | None, renamed("--trials", "--splits")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, such as 1-3: a run for each, one after another, and their mean.")
    ] = None,
    runs: RunsOption = None,
    device: DeviceOption = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Number of ranks, one GPU each.", show_default="the preset's"),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Refuse a preset of another method.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Refuse a preset of another data set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train with the method of a preset; resumes an interrupted run of the same configuration."""
    from pipeline.config.presets import load_config, refuse_other, values_for_data

    # If torchrun has started the ranks, no option changes their number.
    execution = _given(device=device, runs_folder=runs, processes=ranks_of_torchrun() or processes)
    named = {"data": _given(root=data)} if dataset else values_for_data(preset, data, changes or ())
    config = load_config(preset, changes or (), named | {"execution": execution})
    refuse_other(preset, config, method=method, dataset=dataset)
    chosen = None if splits is None else _split_numbers(splits, config)
    if seeds is None:
        _run(config, chosen, as_json)
    else:
        _run_seeds(config, numbers_of("--seeds", seeds, "1-3, or 1,4,7"), chosen, as_json)


@app.command()
def demo(
    method: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{method_name(one)} trains {one.summary}" for one in CONFIGS) + ".",
            show_default=method_name(CONFIGS[0]),
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Another preset, such as plus-demo.", show_default="the method's")
    ] = None,
    changes: SetOption = None,
    runs: RunsOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate the demonstration data set once, and train on it with the demo CLIP."""
    from pipeline.config.presets import load_config, refuse_other

    presets = {method_name(one): one.demo_preset for one in CONFIGS}
    if method is not None and method not in presets:
        raise ConfigError(f"there is no method {method!r}", hint=f"choose one of {', '.join(presets)}")
    preset = preset or presets[method or method_name(CONFIGS[0])]
    values = {"data": {"root": DEMO_DATA}, "execution": _given(device=device, runs_folder=runs)}
    config = load_config(preset, changes or (), values)
    refuse_other(preset, config, method=method, dataset="sysu")  # the layout of the demonstration's images
    draw_demo_once()
    _run(config, None, as_json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    data: DataOption = None,
    root: ManifestRootOption = None,
    split: Annotated[int | None, typer.Option(min=1, max=10, help="RegDB: the split, which must be the run's.")] = None,
    _trial: Annotated[str | None, renamed("--trial", "--split")] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Write the features to this .npz or .parquet."),
        Output("--features", FEATURES),
    ] = None,
    per_query: PerQueryOption = None,
    marks: Annotated[
        Path | None, typer.Option("--feedback", help="Also count the marks on this run's hits in this file.")
    ] = None,
    skip_unreadable: SkipOption = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:N.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a run's last finished round again, or the round that was selected as its result."""
    from pipeline.runs.inputs import expect_inputs_of

    expect_inputs_of(run, data, root, split)
    counts = None if marks is None else count_marks_of(run, marks)
    from flows.deployments import at_terminal
    from flows.prefect_local import prefect_at_terminal, with_or_without_prefect

    with prefect_at_terminal():
        options = {"data_root": data, "images_root": root, "device": device, "split": split, "features_file": features}
        report: EvaluationReport | None = with_or_without_prefect(
            at_terminal("evaluate"),
            options | {"run_folder": run, "queries_file": per_query, "skip_unreadable": skip_unreadable},
        )
    if as_json and counts is not None:
        print_json(({} if report is None else report.to_dict()) | {"feedback": counts.to_dict()})
    else:
        print_report(report, as_json)
        if counts is not None:
            print_line("marks of users on search results, which are no result of a protocol:")
            print_marks(counts)
    if report is None or not (report.searches or report.validation):
        raise typer.Exit(1)  # nothing was measured


@app.command("demo-clip")
def demo_clip(
    minutes: Annotated[float, typer.Option(min=0.1, help="Training time.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Seed of weights and people.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="The model folder to write.", show_default="the shipped one"),
        Output("--out"),
    ] = None,
) -> None:
    """Train the demo CLIP on synthetic people, and write its model card."""
    from models.clip import demo_clip_folder
    from pipeline.demo_clip.making import make_demo_clip

    make_demo_clip(out or demo_clip_folder(), minutes=minutes, seed=seed)


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
    """Options of `vireid` itself."""


check_outputs_of(app)


def _run(config: "AnyConfig", splits: list[int] | None, as_json: bool) -> None:
    from pipeline.config.experiment import with_split
    from pipeline.runs.inputs import expect_inputs

    configs = [config] if splits is None else [with_split(config, split) for split in splits]
    for one in configs:
        expect_inputs(one)  # before torch and Prefect are imported, which takes seconds
    from flows.deployments import train, train_splits
    from flows.prefect_local import prefect_at_terminal, with_or_without_prefect
    from flows.tasks import rank_zero_of_torchrun
    from pipeline.runs.open import run_path

    with rank_zero_of_torchrun(configs) as is_rank_zero, prefect_at_terminal():
        if not is_rank_zero:
            return
        if splits is not None:
            average, path = with_or_without_prefect(train_splits, {"config": config, "splits": splits})
        else:
            report, path = train(config), run_path(config)
    if splits is None:
        print_result(config, report, as_json)
    elif as_json:
        print_json(average.to_dict())
    else:
        print_average(average)
    _print_places(config, path)


def _run_seeds(config: "AnyConfig", seeds: list[int], splits: list[int] | None, as_json: bool) -> None:
    """Train a run for each seed, or for each seed and split, and print the mean; finished runs are only read."""
    from flows.deployments import train
    from flows.prefect_local import prefect_at_terminal
    from flows.tasks import rank_zero_of_torchrun
    from pipeline.config.experiment import with_seed, with_split
    from pipeline.reports.result_table import formatted, result_table
    from pipeline.runs.open import run_path
    from pipeline.storage.run_reader import read_run

    configs = [with_seed(config, seed) for seed in seeds]
    if splits is not None:
        configs = [with_split(one, split) for one in configs for split in splits]
    measured = True
    with rank_zero_of_torchrun(configs) as is_rank_zero, prefect_at_terminal():
        if not is_rank_zero:
            return
        for number, one in enumerate(configs, start=1):
            print_note(f"run {number} of {len(configs)}: {run_path(one)}")
            report = train(one)
            measured &= report is not None and bool(report.searches)
    if not measured:
        print_report(None, as_json)
    else:
        result = result_table([read_run(run_path(one)) for one in configs])
        if as_json:
            print_json(result.to_dict())
        else:
            typer.echo(formatted(result, "md"), nl=False)
    _print_address(config)


def _print_places(config: "AnyConfig", result: Path) -> None:
    print_note(f"run: {result}")
    _print_address(config)


def _print_address(config: "AnyConfig") -> None:
    if config.execution.tracking:
        folder = shlex.quote(str(config.execution.runs_folder)).replace("$", "$$")
        print_note(f"compare rounds: make ui RUNS={folder}")


def _print_rounds(config: "AnyConfig", report: "EvaluationReport | None") -> None:
    from pipeline.reports.round_table import table
    from pipeline.runs.open import run_path
    from pipeline.storage.run_folder import RunFolder

    with RunFolder.reopen(run_path(config)) as folder:
        rows, timings = folder.read_metrics(), folder.read_timings()
    seconds = [timing["seconds/total"] for timing in timings]
    headline = report.searches[0].name if report is not None and report.searches else None
    stdout().print(table(rows, seconds, headline, f"{config.name}, seed {config.seed}"))


def _split_numbers(text: str, config: "AnyConfig") -> list[int]:
    """The splits of RegDB that `--splits` names."""
    options = options_of(config.data.name)
    if not options.model_per_split:
        raise ConfigError(
            f"--splits is for RegDB; data.name is {config.data.name}", hint="omit it, or use preset cclnet-regdb"
        )
    numbers, known = numbers_of("--splits", text, "1-10, or 1,4,7"), options.splits
    if not set(numbers) <= set(known):
        message = f"--splits {text!r}: the splits are {known[0]} to {known[-1]}"
        raise ConfigError(message, hint="write 1-10, or 1,4,7")
    return numbers


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _given(**options: object) -> dict[str, Any]:
    """The options that the user has set; others do not change a preset."""
    return {name: value for name, value in options.items() if value is not None}
