"""`vireid search` and `vireid calibrate`: rank a gallery's images, and find out what their scores mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from flows.cli.encoder import BatchOption, RootOption, RunArgument
from flows.cli.options import (
    DeepRangeOption,
    DeviceOption,
    JsonOption,
    OrientationOption,
    Output,
    PrecisionOption,
    WorkersOption,
    deep_range_of,
    one_of,
    orientation_of,
    precision_of,
)
from flows.cli.printing import print_json, print_line, print_note, printable, stdout
from pipeline.config.datasets import DIRECTIONS
from pipeline.runtime.outputs import HITS, PAGE

if TYPE_CHECKING:
    from models.modality import Modality
    from pipeline.inference.encoder import TrainedEncoder
    from pipeline.inference.groups import GroupBy, Grouping
    from pipeline.inference.index import Gallery, GallerySource
    from pipeline.inference.milvus_address import MilvusAddress
    from pipeline.inference.milvus_gallery import MilvusGallery
    from pipeline.inference.searching import FoundByQuery, GallerySearchResult

MOST_SHOWN = 20
FILES = (".csv", ".tsv", ".jsonl", ".txt")
METHODS = ("auto", "exact", "ivf")


QueryOption = Annotated[Path, typer.Option(help="An image, a folder, a manifest, or a list of paths (.txt).")]
GalleryOption = Annotated[
    Path, typer.Option(help="As for --query; or an existing index (a folder, milvus://...), or features of `embed`.")
]
DirectionOption = Annotated[str, typer.Option(help=f"{' or '.join(DIRECTIONS)}.")]
TopOption = Annotated[int, typer.Option("--top", "-k", min=1, help="Retrieved images per query.")]
IndexOption = Annotated[
    Path | None,
    typer.Option(
        help="The index's folder, or milvus://... to keep it in Milvus.",
        show_default="one in `indexes` for gallery and encoder",
    ),
    Output("--index"),
]
MethodOption = Annotated[str, typer.Option(help="exact, ivf (inverted lists), or auto: ivf above 300,000 images.")]
QuerySplitOption = Annotated[list[str] | None, typer.Option(help="Manifest split of the queries. Repeatable.")]
GallerySplitOption = Annotated[list[str] | None, typer.Option(help="Manifest split of the gallery. Repeatable.")]
GroupOption = Annotated[
    str | None,
    typer.Option("--group", help="Search images as one: track, folder, or a pattern such as '{camera}/{track}_{}'."),
]
QueryGroupOption = Annotated[str | None, typer.Option(help="--group of the queries only.")]
GalleryGroupOption = Annotated[str | None, typer.Option(help="--group of the gallery only.")]
GroupByOption = Annotated[str, typer.Option(help="Vector of a group: mean, or medoid, its most central image.")]
FalseMatchOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="Show only hits that this share of strangers reaches; needs `vireid calibrate`."
    ),
]
CsvOption = Annotated[
    Path | None, typer.Option("--csv", help="Also write a table of the hits."), Output("--csv", HITS.csv)
]
ParquetOption = Annotated[
    Path | None, typer.Option("--parquet", help="The same as Parquet."), Output("--parquet", HITS.parquet)
]
SqliteOption = Annotated[
    Path | None, typer.Option("--sqlite", help="The same as an SQLite file."), Output("--sqlite", HITS.sqlite)
]
VectorsOption = Annotated[
    bool, typer.Option("--vectors/--no-vectors", help="Whether tables have the vector of each hit, nearly all of them.")
]
PageOption = Annotated[
    Path | None, typer.Option("--html", help="Write HTML pages that open without a server."), Output("--html", PAGE)
]


def search(
    run: RunArgument,
    query: QueryOption,
    gallery: GalleryOption,
    direction: DirectionOption,
    top: TopOption = 10,
    group: GroupOption = None,
    query_group: QueryGroupOption = None,
    gallery_group: GalleryGroupOption = None,
    group_by: GroupByOption = "mean",
    false_match: FalseMatchOption = None,
    index: IndexOption = None,
    method: MethodOption = "auto",
    query_split: QuerySplitOption = None,
    gallery_split: GallerySplitOption = None,
    root: RootOption = None,
    html: PageOption = None,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    sqlite: SqliteOption = None,
    vectors: VectorsOption = True,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    orientation: OrientationOption = None,
    deep_range: DeepRangeOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank gallery images by their similarity to queries of the other modality."""
    asking, asked = _modalities(direction)
    kind = one_of("--method", method, METHODS)
    grouping = grouping_of(query_group or group, gallery_group or group, group_by)
    from pipeline.data.image_list import list_images
    from pipeline.inference.milvus_calibration import calibrations_of
    from pipeline.inference.run_encoder import open_encoder
    from pipeline.inference.search_page import write_search_page
    from pipeline.inference.searching import hit_columns, search_gallery
    from pipeline.runtime.table_files import TableFiles

    queries = list_images(query, asking, query_split or (), root_of(query, root))
    encoder = open_encoder(run, device, precision_of(precision), orientation_of(orientation), deep_range_of(deep_range))
    source = _source(gallery, asked, gallery_split, root)
    opened, folder = _open(source, index, encoder, batch_size, workers, kind)
    result = search_gallery(
        encoder, queries, opened, top, batch_size=batch_size, workers=workers, grouping=grouping,
        calibrations=calibrations_of(opened, folder), false_match=false_match,
    )  # fmt: skip
    tables = TableFiles(csv, parquet, sqlite).write(HITS, hit_columns(result, encoder.digest, vectors=vectors))
    pages = [] if html is None else write_search_page(result, queries, opened, html)
    _print_result(result, opened.images, folder, {"table": tables, "page": pages}, as_json)


def calibrate(
    run: RunArgument,
    gallery: GalleryOption,
    strangers: Annotated[
        Path, typer.Option(help="Images of people who are not in the gallery, or whom manifests name; as for --query.")
    ],
    direction: DirectionOption,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="Calibrate groups too, as in `vireid search`. Repeatable.")
    ] = None,
    query_group: Annotated[
        list[str] | None, typer.Option(help="--group of the strangers only, as in `vireid search`. Repeatable.")
    ] = None,
    group_by: GroupByOption = "mean",
    index: IndexOption = None,
    strangers_split: Annotated[list[str] | None, typer.Option(help="Manifest split of the strangers.")] = None,
    gallery_split: GallerySplitOption = None,
    root: RootOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    orientation: OrientationOption = None,
    deep_range: DeepRangeOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store with a gallery's index how high people score who are not in it; `search` then prints chances."""
    asking, asked = _modalities(direction)
    groupings = [grouping_of(one, one, group_by) for one in group or ()]
    groupings += [grouping_of(one, None, group_by) for one in query_group or ()]
    from pipeline.data.image_list import list_images
    from pipeline.inference.milvus_calibration import calibrate_index
    from pipeline.inference.run_encoder import open_encoder

    images = list_images(strangers, asking, strangers_split or (), root_of(strangers, root))
    encoder = open_encoder(run, device, precision_of(precision), orientation_of(orientation), deep_range_of(deep_range))
    opened, folder = _open(_source(gallery, asked, gallery_split, root), index, encoder, batch_size, workers)
    found = calibrate_index(opened, folder, encoder, images, groupings, batch_size=batch_size, workers=workers)
    summaries = {str(grouping): one.summary() for grouping, one in found.items()}
    if as_json:
        print_json({"index": str(folder), "calibrations": summaries})
        return
    print_line(f"{folder}: calibrated")
    for name, summary in summaries.items():
        _print_summary(name, summary)


def _modalities(direction: str) -> "tuple[Modality, Modality]":
    """The modalities of queries and gallery."""
    one_of("--direction", direction, DIRECTIONS)
    from models.modality import Modality

    asking, _, asked = direction.partition("_to_")
    return Modality(asking), Modality(asked)


def grouping_of(query: str | None, gallery: str | None, by: str) -> "Grouping":
    """The grouping of the values of options."""
    from pipeline.inference.groups import GROUP_BY, Grouping

    return Grouping(query or "", gallery or "", cast("GroupBy", one_of("--group-by", by, GROUP_BY)))


def root_of(images: Path, root: Path | None) -> Path | None:
    """`--root` where it can be meant: for files that list images."""
    return root if images.suffix.lower() in FILES else None


def _source(gallery: Path, modality: "Modality", splits: list[str] | None, root: Path | None) -> "GallerySource":
    from pipeline.inference.index import GallerySource

    return GallerySource(gallery, modality, tuple(splits or ()), root_of(gallery, root))


def _open(
    source: "GallerySource",
    index: Path | None,
    encoder: "TrainedEncoder",
    batch_size: int,
    workers: int | None,
    kind: str = "auto",
) -> "tuple[Gallery | MilvusGallery, Path | MilvusAddress]":
    from pipeline.inference.gallery_images import Kind
    from pipeline.inference.index import INDEXES
    from pipeline.inference.index_refresh import open_or_refresh

    return open_or_refresh(
        source, index, INDEXES, encoder, batch_size=batch_size, kind=cast(Kind, kind), workers=workers
    )


def _print_result(
    result: "GallerySearchResult",
    gallery: int,
    index: "Path | MilvusAddress",
    written: Mapping[str, Sequence[Path]],
    as_json: bool,
) -> None:
    if as_json:
        print_json({"index": str(index), "gallery": gallery, **result.to_dict()})
    else:
        _print_hits(result)
    print_note(f"index: {index}")
    for what, files in written.items():
        for file in files:
            print_note(f"{what}: {file}")


def _print_summary(name: str, summary: "Mapping[str, float]") -> None:
    """`summary` has the number of strangers, and the score that each share of them reaches."""
    shares = [f"{share} of them score {score:.3f} or more" for share, score in summary.items() if share != "strangers"]
    known = ", ".join(shares) or "too few for the score that 1 in 10 of them reaches: 100 are needed"
    print_line(f"{name}: {summary['strangers']:,.0f} strangers; {known}")


def _print_hits(result: "GallerySearchResult") -> None:
    for query in result.queries[:MOST_SHOWN]:
        _print_query(query)
    if len(result.queries) > MOST_SHOWN:
        print_line(f"the first {MOST_SHOWN} of {len(result.queries):,} queries; --json, --csv and --html have all")
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


def _print_query(query: "FoundByQuery") -> None:
    from pipeline.inference.searching import one_in_text

    title = query.group or query.path
    title += f" ({query.images:,} images)" * (query.images > 1)
    if not query.hits:
        print_line(f"{title}: no match")
        return
    table = Table(title=printable(title), title_justify="left")
    chances = query.hits[0].one_in is not None
    for column in ("rank", "score", *["strangers"] * chances):
        table.add_column(column, justify="right")
    known = [column for column in ("camera", "person", "group") if any(getattr(hit, column) for hit in query.hits)]
    grouped = any(hit.images > 1 for hit in query.hits)
    judged = any(hit.right is not None for hit in query.hits)
    for column in (*known, *["images"] * grouped, *["right"] * judged, "image"):
        table.add_column(column, overflow="fold")
    for rank, hit in enumerate(query.hits, start=1):
        cells = [str(getattr(hit, column)) for column in known]
        cells += [f"{hit.images:,}"] * grouped + [{True: "yes", False: "no", None: ""}[hit.right]] * judged
        chance = [] if hit.one_in is None else [one_in_text(hit.one_in)]
        table.add_row(str(rank), f"{hit.score:.4f}", *chance, *map(printable, cells), printable(hit.path))
    stdout().print(table)
