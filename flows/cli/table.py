"""`vireid table`: results of runs as a table for a document."""

from pathlib import Path
from typing import Annotated, cast

import typer

from flows.cli.options import one_of
from pipeline.errors import ConfigError

_FORMATS = ("md", "csv", "latex")

_MOST = 100
"""Largest number of seeds or splits of one command."""


def table(
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of finished runs of one data set.")] = None,
    form: Annotated[str, typer.Option("--format", help="md, csv or latex.")] = "md",
    search: Annotated[
        str | None, typer.Option(help="A search of the runs.", show_default="the first search of the data set")
    ] = None,
) -> None:
    """Print results; runs that differ in their seed or RegDB split only are one row, with mean and deviation."""
    one_of("--format", form, _FORMATS)
    from pipeline.reports.result_table import TableFormat, formatted, result_table
    from pipeline.storage.run_reader import read_run

    named = {path.resolve(): path for path in reversed(runs or ())}  # without duplicates
    result = result_table([read_run(path) for path in reversed(named.values())], search)
    typer.echo(formatted(result, cast("TableFormat", form)), nl=False)


def numbers_of(option: str, text: str, example: str) -> list[int]:
    """Parse `1-10`, `3`, or `1,4,7-9` into ascending numbers; at most 100."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()) or int(last or first) - int(first) >= _MOST:
            what = option.removeprefix("--")
            raise ConfigError(f"{option} {text!r} is not a list of {what}, at most {_MOST}", hint=f"write {example}")
        numbers |= set(range(int(first), int(last or first) + 1))
    if not numbers:
        raise ConfigError(f"{option} {text!r} names no number", hint=f"write {example}")
    return sorted(numbers)
