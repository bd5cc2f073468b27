"""`vireid runs`: list runs with state and results; `vireid runs sync`: log missing rounds to MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption, RunsOption
from flows.cli.printing import print_json, print_line, stdout
from pipeline.errors import VireidError

if TYPE_CHECKING:
    from pipeline.storage.run_reader import RecordedRun, RoundScore

runs_app = typer.Typer(help="List runs with their state and results, or log missing rounds to MLflow.")

_NUMBERS = ("seed", "rounds", "Rank-1", "mAP", "best Rank-1", "mAP then", "in round")


@runs_app.callback(invoke_without_command=True)
def list_runs(context: typer.Context, folder: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
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
        stdout().print(_table(found))
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


def _table(found: "list[RecordedRun]") -> Table:
    result = Table()
    for column in ("run", "method", "data", "seed", "digest", "rounds", "state", *_NUMBERS[2:], "written"):
        result.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    for run in found:
        last, best = run.scores[-1] if run.scores else None, run.best
        result.add_row(
            run.name,
            run.method,
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
