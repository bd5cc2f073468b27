"""`vireid runs`: what has been trained, how far it came, and what it found."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.printing import print_json, stdout
from pipeline.errors import VireidError
from pipeline.recorded_run import RecordedRun, RoundScore, read_runs

_NUMBERS = ("seed", "rounds", "Rank-1", "mAP", "best Rank-1", "mAP then", "in round")


def runs(
    folder: Annotated[Path, typer.Option("--runs", help="Where runs are kept.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List runs with their state and their numbers; runs that are being trained are not disturbed."""
    entries = list(read_runs(folder))
    found = sorted((one for one in entries if isinstance(one, RecordedRun)), key=lambda run: (run.written, run.name))
    others = [one.message for one in entries if isinstance(one, VireidError)]
    if as_json:
        print_json({"runs": [run.to_dict() for run in found], "not_runs": others})
        return
    console = stdout()
    if found:
        console.print(_table(found))
        console.print("best: the round of the highest test Rank-1, which is no result: the test has chosen it")
    else:
        console.print(f"no runs in {folder}", markup=False, highlight=False)
    for message in others:
        console.print(f"left out: {message}", markup=False, highlight=False, soft_wrap=True)


def _table(found: list[RecordedRun]) -> Table:
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


def _percent(score: RoundScore | None) -> tuple[str, str]:
    return ("", "") if score is None else (f"{100 * score.r1:.2f}", f"{100 * score.map:.2f}")
