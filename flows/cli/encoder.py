"""`vireid embed`, `vireid search` and `vireid export`: use the trained encoder of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from flows.cli.options import (
    DeepRangeOption,
    DeviceOption,
    JsonOption,
    OrientationOption,
    Output,
    PrecisionOption,
    WorkersOption,
    deep_range_of,
    modality_of,
    one_of,
    orientation_of,
    precision_of,
)
from flows.cli.printing import print_json, print_line, print_note, printable, stdout
from pipeline.config.datasets import DIRECTIONS
from pipeline.runtime.outputs import FEATURES, PAGE

if TYPE_CHECKING:
    from pipeline.inference.searching import GallerySearchResult

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's folder, its checkpoint, or a model of MLflow: models:/NAME/1.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images encoded at once.")]
RootOption = Annotated[
    Path | None, typer.Option(help="Base folder of paths in manifests and lists.", show_default="the file's folder")
]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split of a manifest, such as query. Repeatable.")
]


def embed(
    run: RunArgument,
    images: Annotated[
        Path, typer.Argument(help="A folder, a manifest (.csv, .jsonl), a list of paths (.txt), or an image.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz file to write."), Output("--out", FEATURES)],
    modality: Annotated[str | None, typer.Option(help="visible or infrared; selects rows of a manifest.")] = None,
    split: SplitOption = None,
    root: RootOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    orientation: OrientationOption = None,
    deep_range: DeepRangeOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode images to features for `vireid rank` and `vireid label`; resumes an interrupted command."""
    from pipeline.data.image_list import list_images
    from pipeline.inference.embedding import embed_to_file
    from pipeline.inference.run_encoder import open_encoder

    chosen = list_images(images, None if modality is None else modality_of("--modality", modality), split or (), root)
    encoder = open_encoder(run, device, precision_of(precision), orientation_of(orientation), deep_range_of(deep_range))
    written = embed_to_file(encoder, chosen, out, batch_size=batch_size, workers=workers)
    if as_json:
        print_json({"file": str(out), **written.to_dict()})
    else:
        print_line(f"{out}: {written}")


MOST_SHOWN = 20
FILES = (".csv", ".tsv", ".jsonl", ".txt")
METHODS = ("auto", "exact", "ivf")


QueryOption = Annotated[Path, typer.Option(help="An image, a folder, a manifest, or a list of paths (.txt).")]
GalleryOption = Annotated[Path, typer.Option(help="As for --query; or the folder of an existing index.")]
DirectionOption = Annotated[str, typer.Option(help=f"{' or '.join(DIRECTIONS)}.")]
TopOption = Annotated[int, typer.Option("--top", "-k", min=1, help="Retrieved images per query.")]
IndexOption = Annotated[
    Path | None,
    typer.Option(help="The index's folder.", show_default="one in `indexes` for gallery and encoder"),
    Output("--index"),
]
MethodOption = Annotated[str, typer.Option(help="exact, ivf (inverted lists), or auto: ivf above 300,000 images.")]
QuerySplitOption = Annotated[list[str] | None, typer.Option(help="Manifest split of the queries. Repeatable.")]
GallerySplitOption = Annotated[list[str] | None, typer.Option(help="Manifest split of the gallery. Repeatable.")]
PageOption = Annotated[
    Path | None, typer.Option("--html", help="Write an HTML page that opens without a server."), Output("--html", PAGE)
]


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
    orientation: OrientationOption = None,
    deep_range: DeepRangeOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank gallery images by their similarity to queries of the other modality."""
    towards = one_of("--direction", direction, DIRECTIONS)
    kind = one_of("--method", method, METHODS)
    from models.modality import Modality
    from pipeline.data.image_list import list_images
    from pipeline.inference.index import INDEXES, GallerySource
    from pipeline.inference.index_refresh import Kind, open_or_refresh
    from pipeline.inference.run_encoder import open_encoder
    from pipeline.inference.searching import search_gallery

    asking, _, asked = towards.partition("_to_")
    queries = list_images(query, Modality(asking), query_split or (), root if query.suffix.lower() in FILES else None)
    encoder = open_encoder(run, device, precision_of(precision), orientation_of(orientation), deep_range_of(deep_range))
    source = GallerySource(
        gallery, Modality(asked), tuple(gallery_split or ()), root if gallery.suffix.lower() in FILES else None
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
        _print_hits(result)
    print_note(f"index: {folder}")
    if html is not None:
        print_note(f"page: {html}")


def _print_hits(result: "GallerySearchResult") -> None:
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
        print_line(f"the first {MOST_SHOWN} of {len(result.queries):,} queries; --json and --html show all")
    if result.score is not None:
        score = result.score
        print_line(
            f"{score.queries:,} queries whose person is in the gallery: Rank-1 {100 * score.rank1:.2f} %, "
            f"{100 * score.found_in_hits:.2f} % within the retrieved images"
        )
    if result.caution:
        print_line(result.caution)
    if result.recall is not None:
        print_line(f"approximate search: recall {result.recall:.1%} of the exact results")


EXPORTS = Path("exports")
FORMATS = ("safetensors", "torchscript", "onnx")


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its checkpoint.")],
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The new folder.", show_default="exports/<run>-<format>"),
        Output("--out"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a network for each modality with its preprocessing, and compare its features with the run's."""
    one_of("--format", form, FORMATS)
    from pipeline.inference.export import Format, export_encoder
    from pipeline.inference.run_encoder import read_run_encoder

    encoder = read_run_encoder(run, "cpu")
    exported = export_encoder(encoder, cast(Format, form), out or EXPORTS / f"{encoder.name}-{form}")
    if as_json:
        print_json(exported.to_dict())
        return
    for name in exported.files:
        print_line(str(exported.folder / name))
    print_line(f"largest difference from the run's features: {exported.difference:.1e}")
