"""`vireid runs`: what has been trained, how far it came, and what it found; `vireid runs sync`: MLflow told of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption, RunsOption
from flows.cli.printing import print_json, print_line, stdout
from pipeline.errors import VireidError

if TYPE_CHECKING:
    from pipeline.storage.run_reader import RecordedRun, RoundScore

runs_app = typer.Typer(help="List runs with their state and their numbers, or bring MLflow up to date with them.")

_NUMBERS = ("seed", "rounds", "Rank-1", "mAP", "best Rank-1", "mAP then", "in round")


@runs_app.callback(invoke_without_command=True)
def list_runs(context: typer.Context, folder: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """List runs with their state and their numbers; runs that are being trained are not disturbed."""
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
        stdout().print(_table(found))
        print_line("best: the round of the highest test Rank-1, which is no result: the test has chosen it")
    else:
        print_line(f"no runs in {folder}")
    for message in others:
        print_line(f"left out: {message}")


@runs_app.command()
def sync(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs; all whose record lacks something, if none is named.")
    ] = None,
    folder: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Tell MLflow what it missed of runs while it did not answer; what it knows already is not repeated."""
    from pipeline.tracking.sync import sync_run, unsynced_runs

    done = [sync_run(path) for path in runs or unsynced_runs(folder)]
    if as_json:
        print_json({"runs": [run.to_dict() for run in done]})
        return
    for run in done:
        print_line(f"{run.path}: {run.rounds} of {run.planned} rounds in MLflow")
    if not done:
        print_line(f"no run in {folder} waits for MLflow")


def _table(found: "list[RecordedRun]") -> Table:
    result = Table()
    for column in ("run", "method", "data", "seed", "digest", "rounds", "state", *_NUMBERS[2:], "written"):
        result.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    for run in found:
        last, best = run.scores[-1] if run.scores else None, run.best
        result.add_row(
            run.name,
            run.config.method,
            run.data,
            str(run.config.seed),
            run.digest,
            f"{len(run.rounds)} of {run.planned}",
            run.state,
            *_percent(last),
            *_percent(best),
            "" if best is None else str(best.round),
            f"{run.written.astimezone():%Y-%m-%d %H:%M}",
        )
    return result


def _percent(score: "RoundScore | None") -> tuple[str, str]:
    return ("", "") if score is None else (f"{100 * score.r1:.2f}", f"{100 * score.map:.2f}")
