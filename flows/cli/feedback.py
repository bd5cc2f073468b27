"""`vireid feedback`: count the marks of users on search results."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption
from flows.cli.printing import print_json, print_line, printable, stdout


def feedback(
    file: Annotated[Path, typer.Argument(help="The file of marks that `vireid serve` writes.")],
    as_json: JsonOption = False,
) -> None:
    """Count marks: share of right first hits, and precision by rank, for each run; the last mark on a hit counts."""
    from pipeline.inference.feedback import count_marks, read_marks

    counts = count_marks(read_marks(file))
    if as_json:
        print_json({"runs": [one.to_dict() for one in counts]})
        return
    if not counts:
        print_line(f"{file} has no marks")
    for one in counts:
        table = Table(title=printable(one.run), title_justify="left")
        for column in ("rank", "right", "wrong", "precision"):
            table.add_column(column, justify="right")
        for rank in one.ranks:
            table.add_row(str(rank.rank), f"{rank.right:,}", f"{rank.wrong:,}", f"{100 * rank.precision:.1f} %")
        stdout().print(table)
        print_line(f"{one.marks:,} marks on {one.queries:,} queries, {one.right:,} of them right")
        if one.first_marked:
            share = 100 * one.first_right / one.first_marked
            print_line(f"first hits: {one.first_right:,} of {one.first_marked:,} right, {share:.1f} %")
