"""`vireid feedback`: count the marks of users on search results."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption
from flows.cli.printing import print_json, print_line, printable, stdout

if TYPE_CHECKING:
    from pipeline.inference.feedback import FeedbackCounts


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
        print_marks(one)


def count_marks_of(run: Path, file: Path) -> "FeedbackCounts":
    """The counts of a run's marks, zeros without one; DataError as `read_marks`."""
    from pipeline.inference.feedback import FeedbackCounts, count_marks, read_marks

    name = run.resolve().name
    found = [one for one in count_marks(read_marks(file)) if one.run == name]
    return found[0] if found else FeedbackCounts(name, 0, 0, 0, 0, 0, ())


def print_marks(counts: "FeedbackCounts") -> None:
    """Print the counts of marks on the hits of one run."""
    if not counts.marks:
        print_line(f"{printable(counts.run)}: no marks")
        return
    table = Table(title=printable(counts.run), title_justify="left")
    for column in ("rank", "right", "wrong", "precision"):
        table.add_column(column, justify="right")
    for rank in counts.ranks:
        table.add_row(str(rank.rank), f"{rank.right:,}", f"{rank.wrong:,}", f"{100 * rank.precision:.1f} %")
    stdout().print(table)
    print_line(f"{counts.marks:,} marks on {counts.queries:,} queries, {counts.right:,} of them right")
    if counts.first_marked:
        share = 100 * counts.first_right / counts.first_marked
        print_line(f"first hits: {counts.first_right:,} of {counts.first_marked:,} right, {share:.1f} %")
