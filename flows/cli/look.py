"""`vireid look`: pairs, clusters, changes and failures of a round, as a page and as a table."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from flows.cli.options import JsonOption, ManifestRootOption, Output
from flows.cli.printing import print_json, print_line, print_note, quality_table, stdout
from pipeline.runtime.outputs import PAGE, PAIRS, write_output

if TYPE_CHECKING:
    from pipeline.reports.look import Look


def look(
    run: Annotated[Path, typer.Argument(help="The folder of a run with clusters.")],
    round_number: Annotated[
        int | None, typer.Option("--round", min=1, help="The round.", show_default="the last one")
    ] = None,
    html: Annotated[Path, typer.Option("--html", help="The HTML page to write."), Output("--html", PAGE)] = Path(
        "look.html"
    ),
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write all pairs to this .csv file."), Output("--csv", PAIRS)
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The present folder of the data set.")] = None,
    root: ManifestRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a round's pairs, clusters and worst queries; writes an HTML page that opens without a server."""
    from pipeline.reports.look import look_at
    from pipeline.reports.look_page import write_look

    found = look_at(run, round_number, data_root=data, images_root=root)
    missing, omitted = write_look(found, html)
    if table is not None:
        _write_pairs(found, table)
    if as_json:
        print_json(found.to_dict() | {"images_missing": missing, "images_omitted": omitted, "page": str(html)})
    else:
        _print(found, missing)
    print_note(f"page: {html}")
    if table is not None:
        print_note(f"pairs: {table}")


def _print(found: "Look", missing: int) -> None:
    from pipeline.reports.quality import MEANING

    kind = ", synthetic images" if found.synthetic else ""
    stdout().print(quality_table(found.quality, f"{found.run.name}, round {found.number}{kind}"))
    print_line(MEANING)
    wrong = [found.is_wrong(place) for place in range(len(found.pairs))]
    known = "" if None in wrong else f"; {sum(map(bool, wrong))} join two people"
    left = ", ".join(f"{len(clusters)} {modality}" for modality, clusters in found.unmatched.items())
    print_line(f"{len(found.pairs)} pairs{known}; clusters without a partner: {left}")
    if missing:
        print_line(f"{missing} images are not in {found.base} any more: they are grey on the page")
    for note in found.notes:
        print_line(f"note: {note}")


def _write_pairs(found: "Look", path: Path) -> None:
    rows = [found.pair_row(place) for place in found.order]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["visible", "infrared", "similarity"])
    writer.writeheader()
    writer.writerows(rows)

    def write(file: BinaryIO) -> None:
        file.write(text.getvalue().encode(errors="backslashreplace"))

    write_output(path, write, PAIRS, "--csv")
