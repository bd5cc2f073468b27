"""`vireid serve`: a page and JSON for searching a gallery with images of users."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli.encoder import BatchOption, RootOption, RunArgument
from flows.cli.options import (
    DeepRangeOption,
    DeviceOption,
    OrientationOption,
    Output,
    PrecisionOption,
    WorkersOption,
    deep_range_of,
    one_of,
    orientation_of,
    precision_of,
)
from flows.cli.printing import print_line, print_note
from flows.cli.search import (
    METHODS,
    GalleryOption,
    GallerySplitOption,
    GroupByOption,
    GroupOption,
    IndexOption,
    MethodOption,
    grouping_of,
    root_of,
)
from pipeline.config.datasets import DIRECTIONS
from pipeline.errors import ConfigError
from pipeline.runtime.outputs import FEEDBACK

if TYPE_CHECKING:
    from pipeline.inference.gallery_images import Kind
    from pipeline.inference.index import GallerySource


DirectionOption = Annotated[
    str | None,
    typer.Option(help=f"{' or '.join(DIRECTIONS)}.", show_default="both of a manifest, that of an index"),
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")]
HostOption = Annotated[str, typer.Option(help="The address to listen on; others than 127.0.0.1 need a token.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(help="File with the token that requests need.", show_default="none, or a random one with --host"),
]
FeedbackOption = Annotated[
    Path, typer.Option(help="The file that marks are appended to."), Output("--feedback", FEEDBACK)
]
MegabytesOption = Annotated[int, typer.Option(min=1, max=1024, help="Largest request.")]
MegapixelsOption = Annotated[int, typer.Option(min=1, max=4096, help="Largest query, all its images together.")]
WaitingOption = Annotated[int, typer.Option(min=0, max=50, help="Searches that may wait; others are refused.")]


def serve(
    run: RunArgument,
    gallery: GalleryOption,
    direction: DirectionOption = None,
    port: PortOption = 8000,
    host: HostOption = "127.0.0.1",
    token_file: TokenOption = None,
    feedback: FeedbackOption = Path("feedback.csv"),
    group: GroupOption = None,
    group_by: GroupByOption = "mean",
    index: IndexOption = None,
    method: MethodOption = "auto",
    gallery_split: GallerySplitOption = None,
    root: RootOption = None,
    most_megabytes: MegabytesOption = 32,
    most_megapixels: MegapixelsOption = 128,
    waiting: WaitingOption = 8,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    orientation: OrientationOption = None,
    deep_range: DeepRangeOption = None,
    workers: WorkersOption = None,
) -> None:
    """Search a gallery from a page in the browser, or by JSON, until Ctrl-C or SIGTERM."""
    kind, grouping = one_of("--method", method, METHODS), grouping_of(group, group, group_by)
    from flows.server.search_app import Desk
    from flows.server.search_guard import Bounds
    from flows.server.search_server import address_of, listen, search_token, serve_search
    from pipeline.inference.run_encoder import open_encoder
    from pipeline.inference.served_milvus import open_served

    _expect_marks(feedback)
    sources, reading = _sources(gallery, direction, gallery_split, root, index), orientation_of(orientation)
    token = search_token(host, token_file)
    with listen(host, port) as listener:
        encoder = open_encoder(run, device, precision_of(precision), reading, deep_range_of(deep_range))
        opened = {
            one.modality.other: open_served(
                one, index, encoder, grouping, batch_size=batch_size, kind=cast("Kind", kind), workers=workers
            )
            for one in sources
        }
        print_line(address_of(listener))
        if token is not None and token_file is None:
            print_note(f"token: {token}")
        print_note(f"marks: {feedback}")
        print_note("ready; Ctrl-C stops")
        bounds = Bounds(body_bytes=most_megabytes * 2**20, pixels=most_megapixels * 1_000_000, waiting=waiting)
        serve_search(Desk(encoder, opened, feedback), listener, host, token, bounds)


def _expect_marks(file: Path) -> None:
    """Raise `DataError` if a file has a line that is no mark: none of the marks behind it could be counted."""
    from pipeline.inference.feedback import read_marks

    if file.exists():
        read_marks(file)


def _sources(
    gallery: Path, direction: str | None, splits: list[str] | None, root: Path | None, index: Path | None
) -> "list[GallerySource]":
    """The galleries that are searched, one or two."""
    towards = None if direction is None else one_of("--direction", direction, DIRECTIONS)
    from pipeline.inference.index import GallerySource
    from pipeline.inference.served_gallery import served_queries

    start, chosen = root_of(gallery, root), tuple(splits or ())
    modalities = served_queries(gallery, towards, chosen, start)
    if index is not None and len(modalities) > 1:
        raise ConfigError("--index names the index of one gallery, this manifest has two", hint="give --direction")
    return [GallerySource(gallery, modality.other, chosen, start) for modality in modalities]
