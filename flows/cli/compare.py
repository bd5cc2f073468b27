"""`vireid compare`: compare rounds of runs, on the terminal and as an HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption, Output
from flows.cli.printing import print_json, print_note, stdout
from pipeline.runtime.outputs import PAGE

if TYPE_CHECKING:
    from pipeline.reports.comparison import Comparison


def compare(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of runs, as `vireid runs` lists them.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A further metric, by its name in MLflow. Repeatable.")
    ] = None,
    html: Annotated[Path, typer.Option("--html", help="The HTML page to write."), Output("--html", PAGE)] = Path(
        "comparison.html"
    ),
    as_json: JsonOption = False,
) -> None:
    """Compare rounds, settings and figures of runs; writes an HTML page that opens without a server."""
    from pipeline.reports.comparison import compare_runs, write_page
    from pipeline.storage.run_reader import read_run

    named: dict[Path, Path] = {}
    for path in runs or ():
        named.setdefault(path.resolve(), path)  # without duplicates
    comparison = compare_runs([read_run(path) for path in named.values()], metric or ())
    write_page(comparison, html)
    if as_json:
        print_json(comparison.to_dict())
    else:
        for table in (_runs(comparison), _groups(comparison), _settings(comparison), _rounds(comparison)):
            if table.row_count:
                stdout().print(table)
    print_note(f"page: {html}")


def _runs(comparison: "Comparison") -> Table:
    result = Table(title="runs", title_justify="left")
    for column in ("", "run", "method", "rounds", "state", "search"):
        result.add_column(column, overflow="fold")
    for letter, run in zip(comparison.letters, comparison.runs, strict=True):
        rounds = f"{len(run.rounds)} of {run.planned}"
        search = (run.headline or "not measured") + (", synthetic" if run.synthetic else "")
        result.add_row(letter, str(run.path), run.method, rounds, run.state, search)
    return result


def _groups(comparison: "Comparison") -> Table:
    from pipeline.reports.comparison import GROUP_HEADS, group_cells

    result = Table(title="runs that differ in seed or split only: mean ± standard deviation", title_justify="left")
    for column in ("", *GROUP_HEADS):
        result.add_column(column, overflow="fold")
    for group in comparison.groups:
        result.add_row(comparison.letters_of(group), *group_cells(group))
    return result


def _settings(comparison: "Comparison") -> Table:
    result = Table(title="settings that differ", title_justify="left")
    for column in ("setting", *comparison.letters):
        result.add_column(column, overflow="fold")
    for difference in comparison.differences:
        result.add_row(difference.setting, *("none" if value is None else str(value) for value in difference.values))
    return result


def _rounds(comparison: "Comparison") -> Table:
    result = Table(title="rounds", title_justify="left")
    result.add_column("round", justify="right")
    for column in comparison.columns:
        for letter in comparison.letters:
            result.add_column(f"{column.title}\n{letter}", justify="right", overflow="fold")
    for number in comparison.rounds:
        cells = [
            column.text(comparison.value(column, place, number))
            for column in comparison.columns
            for place in range(len(comparison.runs))
        ]
        result.add_row(str(number), *cells)
    return result
