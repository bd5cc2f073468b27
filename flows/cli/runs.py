"""`vireid runs`: list runs with state and results; `vireid runs sync`: log missing rounds to MLflow."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.cli.options import JsonOption, RunsOption
from flows.cli.printing import print_json, print_line, stdout
from pipeline.config.presets import changes_from_preset
from pipeline.errors import VireidError

if TYPE_CHECKING:
    from pipeline.storage.run_reader import RecordedRun, RoundScore

_NARROWEST = 12
"""Columns of a run's name on a narrow terminal."""

runs_app = typer.Typer(help="List runs with their state and results, or log missing rounds to MLflow.")

_SHORT = ("run", "data", "rounds", "state", "Rank-1", "mAP")
_LONG = (*_SHORT, "method", "seed", "digest", "best Rank-1", "mAP then", "in round", "written")
_NUMBERS = ("rounds", "Rank-1", "mAP", "seed", "best Rank-1", "mAP then", "in round")


@runs_app.callback(invoke_without_command=True)
def list_runs(
    context: typer.Context,
    folder: RunsOption = Path("runs"),
    long: Annotated[
        bool, typer.Option("--long", help="Show method, seed, digest, the best round and the time of the last write.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List runs with their state and results; running ones are not disturbed."""
    if context.invoked_subcommand is not None:
        return
    from pipeline.storage.run_reader import read_runs

    entries = list(read_runs(folder))
    runs = [one for one in entries if not isinstance(one, VireidError)]
    found = sorted(runs, key=lambda run: (run.written, run.name))
    others = [one.message for one in entries if isinstance(one, VireidError)]
    if as_json:
        print_json({"runs": [run.to_dict() for run in found], "not_runs": others})
        return
    if found:
        print_runs(found, stdout(), long=long)
        if long:
            print_line("best: the round of the highest test Rank-1; not a result, since it is selected on the test set")
    else:
        print_line(f"no runs in {folder}")
    for message in others:
        print_line(f"skipped: {message}")


@runs_app.command()
def sync(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs.", show_default="all with an incomplete record")
    ] = None,
    folder: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Log to MLflow what it lacks of runs, for instance after an outage."""
    from pipeline.tracking.sync import sync_run, unsynced_runs

    done = [sync_run(path) for path in runs or unsynced_runs(folder)]
    if as_json:
        print_json({"runs": [run.to_dict() for run in done]})
        return
    for run in done:
        print_line(f"{run.path}: {run.rounds} of {run.planned} rounds in MLflow")
    if not done:
        print_line(f"no run in {folder} has an incomplete MLflow record")


def print_runs(found: "Sequence[RecordedRun]", console: Console, *, long: bool) -> None:
    """Print a line per run, and below it the settings that differ from its preset; a line fits into 80 columns."""
    from pipeline.reports.groups import setting_text

    names = _LONG if long else _SHORT
    rows = [_cells(run)[: len(names)] for run in found]
    widths = [max(len(row[place]) for row in (names, *rows)) for place in range(len(names))]
    widths[0] = max(_NARROWEST, min(widths[0], console.width - sum(widths[1:]) - 2 * len(widths)))
    console.print(_line(names, widths, style="bold"))
    for run, row in zip(found, rows, strict=True):
        console.print(_line(row, widths))
        changes = changes_from_preset(run.config)
        if changes:
            text = ", ".join(f"{name}={setting_text(value)}" for name, value in changes.items())
            console.print(Padding(Text(text, style="dim"), (0, 0, 0, 4), expand=False))


def _line(cells: Sequence[str], widths: Sequence[int], style: str = "") -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    for name, width in zip(_LONG, widths, strict=False):
        line.add_column(width=width, justify="right" if name in _NUMBERS else "left", overflow="fold", style=style)
    line.add_row(*cells)
    return line


def _cells(run: "RecordedRun") -> tuple[str, ...]:
    """The cells of `_LONG`."""
    last, best = run.scores[-1] if run.scores else None, run.best
    return (
        run.name,
        run.data,
        f"{len(run.rounds)}/{run.planned}",
        run.state,
        *_percent(last),
        run.method,
        str(run.config.seed),
        run.digest,
        *_percent(best),
        "" if best is None else str(best.round),
        f"{run.written.astimezone():%Y-%m-%d %H:%M}",
    )


def _percent(score: "RoundScore | None") -> tuple[str, str]:
    return ("", "") if score is None else (f"{100 * score.r1:.2f}", f"{100 * score.map:.2f}")
