"""`vireid search`: who is on these images? Ranked images of a gallery, on the terminal, as JSON, or as a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from flows.cli.embed import BatchOption, RootOption, RunArgument
from flows.cli.options import DeviceOption, JsonOption, PrecisionOption, WorkersOption, one_of, precision_of
from flows.cli.printing import print_json, print_line, print_note, printable, stdout
from pipeline.config.datasets import DIRECTIONS

if TYPE_CHECKING:
    from pipeline.inference.searching import GallerySearchResult

INDEXES = Path("indexes")
MOST_SHOWN = 20
FILES = (".csv", ".jsonl", ".txt")
METHODS = ("auto", "exact", "ivf")


QueryOption = Annotated[Path, typer.Option(help="An image, a folder, a manifest, or a list of paths (.txt).")]
GalleryOption = Annotated[Path, typer.Option(help="Likewise; or the folder of an index that was made before.")]
DirectionOption = Annotated[str, typer.Option(help=f"{' or '.join(DIRECTIONS)}.")]
TopOption = Annotated[int, typer.Option("--top", "-k", min=1, help="Images that each query finds.")]
IndexOption = Annotated[
    Path | None, typer.Option(help="The index's folder; if left out, one below `indexes` for gallery and encoder.")
]
MethodOption = Annotated[str, typer.Option(help="exact, ivf (lists), or auto: lists above 300,000 images.")]
QuerySplitOption = Annotated[
    list[str] | None, typer.Option(help="Part of a manifest that asks, such as query. May be given again.")
]
GallerySplitOption = Annotated[
    list[str] | None, typer.Option(help="Part of a manifest that is searched. May be given again.")
]
PageOption = Annotated[Path | None, typer.Option("--html", help="Write a page that opens without a server.")]


def search(
    run: RunArgument,
    query: QueryOption,
    gallery: GalleryOption,
    direction: DirectionOption,
    top: TopOption = 10,
    index: IndexOption = None,
    method: MethodOption = "auto",
    query_split: QuerySplitOption = None,
    gallery_split: GallerySplitOption = None,
    root: RootOption = None,
    html: PageOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank images of a gallery by their likeness to queries of the other modality."""
    towards = one_of("--direction", direction, DIRECTIONS)
    kind = one_of("--method", method, METHODS)
    from models.modality import Modality
    from pipeline.data.image_list import list_images
    from pipeline.inference.index import GallerySource
    from pipeline.inference.index_refresh import Kind, open_or_refresh
    from pipeline.inference.run_encoder import open_encoder
    from pipeline.inference.searching import search_gallery

    asking, _, asked = towards.partition("_to_")
    queries = list_images(query, Modality(asking), query_split or (), root if query.suffix in FILES else None)
    encoder = open_encoder(run, device, precision_of(precision))
    source = GallerySource(
        gallery, Modality(asked), tuple(gallery_split or ()), root if gallery.suffix in FILES else None
    )
    opened, folder = open_or_refresh(
        source, index, INDEXES, encoder, batch_size=batch_size, kind=cast(Kind, kind), workers=workers
    )
    result = search_gallery(encoder, queries, opened, top, batch_size=batch_size, workers=workers)
    if html is not None:
        from pipeline.inference.searching import write_search_page

        write_search_page(result, queries, opened, html)
    if as_json:
        print_json({"index": str(folder), "gallery": len(opened.files), **result.to_dict()})
    else:
        _print(result)
    print_note(f"index: {folder}")
    if html is not None:
        print_note(f"page: {html}")


def _print(result: "GallerySearchResult") -> None:
    for query in result.queries[:MOST_SHOWN]:
        table = Table(title=printable(query.path), title_justify="left")
        for column in ("rank", "score"):
            table.add_column(column, justify="right")
        known = [column for column in ("camera", "person") if any(getattr(hit, column) for hit in query.hits)]
        judged = any(hit.right is not None for hit in query.hits)
        for column in (*known, *["right"] * judged, "image"):
            table.add_column(column, overflow="fold")
        for rank, hit in enumerate(query.hits, start=1):
            cells = [str(getattr(hit, column)) for column in known]
            cells += [{True: "yes", False: "no", None: ""}[hit.right]] * judged
            table.add_row(str(rank), f"{hit.score:.4f}", *map(printable, cells), printable(hit.path))
        stdout().print(table)
    if len(result.queries) > MOST_SHOWN:
        print_line(f"the first {MOST_SHOWN} of {len(result.queries):,} queries; --json and --html show more")
    if result.score is not None:
        score = result.score
        print_line(
            f"{score.queries:,} queries whose person is in the gallery: {100 * score.rank1:.2f} % find the person "
            f"first, {100 * score.found_in_hits:.2f} % among the images shown"
        )
    if result.recall is not None:
        print_line(f"searched by lists: {result.recall:.1%} of the most similar images are found")
