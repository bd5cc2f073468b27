"""`vireid forget`: remove the pixels, vectors and names of images from all that was computed from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.options import JsonOption, RunsOption
from flows.cli.printing import print_json, print_line, printable, stdout
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.privacy.forgetting import Places, Report
    from pipeline.privacy.selection import Selection


def forget(
    images: Annotated[
        Path | None,
        typer.Argument(metavar="[LIST]", help="A list of paths (.txt), a manifest, a folder or an image."),
    ] = None,
    person: Annotated[str | None, typer.Option(help="All images of this person of --manifest.")] = None,
    camera: Annotated[str | None, typer.Option(help="All images of this camera of --manifest.")] = None,
    before: Annotated[
        str | None, typer.Option(help="With --camera: images from before a date such as 2026-11-28, in UTC.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="The manifest that names people and cameras.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Base folder of paths in lists and manifests.", show_default="the file's folder")
    ] = None,
    runs: RunsOption = Path("runs"),
    indexes: Annotated[Path, typer.Option(help="The folder of indexes.")] = Path("indexes"),
    also: Annotated[
        list[Path] | None, typer.Option(help="A further file, folder or gallery (milvus://...) to search. Repeatable.")
    ] = None,
    delete_files: Annotated[bool, typer.Option("--delete-files", help="Delete the image files, too.")] = False,
    delete_rows: Annotated[
        bool, typer.Option("--delete-rows", help="Delete the images' rows of --manifest, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is found; without it, nothing is changed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List where images are kept in stores, indexes, runs and files; with --yes remove them there, and search again."""
    from pipeline.privacy.forgetting import Places, Sources
    from pipeline.privacy.forgetting import forget as forget_images

    places = Places(runs, indexes, tuple(also or ()))
    selection = _selection(images, person, camera, before, manifest, root, places)
    sources = Sources(manifest, root, delete_files, delete_rows)
    report = forget_images(selection, places, sources, really=yes)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if yes and not report.complete:
        raise typer.Exit(1)


def _selection(
    images: Path | None,
    person: str | None,
    camera: str | None,
    before: str | None,
    manifest: Path | None,
    root: Path | None,
    places: "Places",
) -> "Selection":
    from pipeline.privacy.selection import images_of_camera, images_of_list, images_of_person

    if sum(one is not None for one in (images, person, camera)) != 1:
        raise ConfigError(
            "the images are given by a list, by --person, or by --camera",
            hint="`vireid forget LIST`, or `vireid forget --person ID --manifest FILE`",
        )
    if before is not None and camera is None:
        raise ConfigError("--before needs --camera", hint="name the camera and its --manifest")
    if images is not None:
        return images_of_list(images, root)
    if manifest is None:
        raise ConfigError(
            f"{'--person' if camera is None else '--camera'} needs a manifest, which names people and cameras",
            hint="name it with --manifest; `vireid data manifest` writes one",
        )
    if person is not None:
        return images_of_person(person, manifest, root, places.indexes, places.galleries())
    assert camera is not None
    return images_of_camera(camera, before, manifest, root, places.indexes, places.galleries())


def _print(report: "Report") -> None:
    print_line(printable(report.title))
    if report.traces:
        table = Table()
        for column in ("place", "content", "found", "removal"):
            table.add_column(column, overflow="fold", justify="right" if column == "found" else "left")
        for trace in report.traces:
            count = "unknown" if trace["images"] is None else f"{trace['images']:,}"
            table.add_row(printable(trace["place"]), trace["what"], count, trace["deed"])
        stdout().print(table)
    for kind, lines in (("cannot be read", report.unread), ("left", report.left), ("note", report.notes)):
        for line in lines:
            print_line(f"{kind}: {printable(line)}")
    if not report.done and report.traces:
        print_line("nothing is changed; --yes removes this")
    elif not report.left and not report.unread:
        print_line(f"found nowhere in {report.searched}")
    print_line("cannot be undone: backups, exported models, and copies elsewhere; see docs/privacy.md")
    for line in report.trained:
        print_line(f"cannot be undone: {printable(line)}")
