"""`vireid data`: generate, check and decode data sets, and write manifests."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import (
    DatasetArgument,
    DatasetPathArgument,
    DeepRangeOption,
    JsonOption,
    ManifestRootOption,
    OrientationOption,
    Output,
    OverlapOption,
    PartialOption,
    SkipOption,
    WorkersOption,
    deep_range_of,
    orientation_of,
)
from flows.cli.printing import print_check, print_json, print_line
from pipeline.runtime.outputs import MANIFEST

data_app = typer.Typer(no_args_is_help=True, help="Generate, check and decode data sets, and write manifests.")

HeightOption = Annotated[int, typer.Option(min=16, max=1024, help="Rows of pixels.")]
WidthOption = Annotated[int, typer.Option(min=16, max=1024, help="Columns of pixels.")]
SplitOption = Annotated[str, typer.Option(help="train, val, query, gallery, or test, of all images.")]
JunkOption = Annotated[
    str | None,
    typer.Option(help="People to exclude, or none.", show_default="negative numbers, and 0000 of Market-1501"),
]
TestShareOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Fraction of the people in test; the others are in train.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the choice of test people.")]


@data_app.command("synth")
def synth(
    out: Annotated[Path, typer.Argument(help="The new folder."), Output("OUT")],
    size: Annotated[str, typer.Option(help="smoke, demo, or large.")] = "demo",
    layout: Annotated[str, typer.Option(help="sysu, regdb, llcm, or manifest.")] = "sysu",
    seed: Annotated[int, typer.Option(help="Other seeds give other people.")] = 1,
    difficulty: Annotated[str, typer.Option(help="easy, moderate, default, or hard.")] = "default",
    unpaired: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the training people who are in one modality only.")
    ] = 0.0,
    height: Annotated[int | None, typer.Option(help="Rows of pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Columns of pixels.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes.", show_default="one for each core")] = None,
) -> None:
    """Generate a data set of synthetic people."""
    from pipeline.data.synthetic.writer import generate_dataset

    generate_dataset(
        out,
        size=size,
        layout=layout,
        seed=seed,
        difficulty=difficulty,
        unpaired=unpaired,
        height=height,
        width=width,
        workers=workers,
    )


@data_app.command("check")
def check(
    name: DatasetArgument,
    path: DatasetPathArgument,
    root: ManifestRootOption = None,
    allow_overlap: OverlapOption = False,
    skip_images: Annotated[bool, typer.Option("--skip-images", help="Do not decode every image.")] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Also compare decoded images in this folder with their digests.")
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a data set with its published counts, and decode every image; exit code 1 if anything differs."""
    from pipeline.data.dataset import inspect_dataset

    result = inspect_dataset(
        name,
        path,
        images_root=root,
        allow_overlap=allow_overlap,
        decode=not skip_images,
        cache_folder=cache,
        workers=workers,
    )
    if as_json:
        print_json({"name": name, "path": str(path), **result.to_dict()})
    else:
        print_check(result)
    if not result.passed:
        raise typer.Exit(1)


@data_app.command("index")
def index(
    name: DatasetArgument,
    path: DatasetPathArgument,
    cache: Annotated[Path, typer.Option("--cache", help="Folder of decoded images."), Output("--cache")] = Path("runs")
    / "images",
    height: HeightOption = 288,
    width: WidthOption = 144,
    root: ManifestRootOption = None,
    allow_overlap: OverlapOption = False,
    allow_partial: PartialOption = False,
    orientation: OrientationOption = None,
    deep_range: DeepRangeOption = None,
    skip_unreadable: SkipOption = False,
    workers: WorkersOption = None,
) -> None:
    """Decode all images once, for every later run of that size; resumes an interrupted command."""
    from pipeline.data.dataset import read_dataset, reading_of, spec_of, verified_store
    from pipeline.data.image_faults import fault_lines

    reading = reading_of(name, orientation=orientation_of(orientation), deep_range=deep_range_of(deep_range) or "image")
    dataset = read_dataset(
        name,
        path,
        split=spec_of(name).any_split,  # the images of all splits are the same
        images_root=root,
        allow_overlap=allow_overlap,
        allow_partial=allow_partial,
    )
    store = verified_store(
        dataset.images,
        height=height,
        width=width,
        cache_folder=cache,
        workers=workers,
        reading=reading,
        unreadable="skip" if skip_unreadable else "refuse",
    )
    for line in fault_lines(store.unreadable):
        print_line(f"skipped: {line}")
    gone = {one.path for one in store.unreadable}
    counts = dataset.images.map(lambda table: sum(path not in gone for path in table.paths))
    print_line(
        f"{counts.visible:,} visible and {counts.infrared:,} infrared images of {height} x {width} in {store.folder}"
    )


@data_app.command("manifest")
def manifest(
    folder: Annotated[Path, typer.Argument(help="The folder of the images.")],
    pattern: Annotated[
        str, typer.Option(help="Pattern of paths, such as 'cam{camera}/{person}/{name}'; also {modality}, {split}.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write."), Output("--out", MANIFEST)] = Path("manifest.csv"),
    infrared_cameras: Annotated[str, typer.Option(help="Cameras that are infrared, separated by commas.")] = "",
    modality_names: Annotated[
        str, typer.Option(help="Names of {modality}, such as 'Thermal=infrared,Visible=visible'.")
    ] = "",
    split: SplitOption = "train",
    split_names: Annotated[
        str, typer.Option(help="Names of {split}, such as 'bounding_box_test=gallery,query=query'.")
    ] = "",
    junk_people: JunkOption = None,
    test_share: TestShareOption = None,
    seed: SeedOption = 1,
    feedback: Annotated[
        Path | None, typer.Option(help="Name people by the marks of this file, which `vireid serve` writes.")
    ] = None,
) -> None:
    """Write a manifest of a folder of images; the modality is never guessed from pixels."""
    from pipeline.data.datasets.manifest.writer import write_manifest

    name_people = None
    if feedback is not None:
        from pipeline.inference.feedback import read_marks
        from pipeline.inference.feedback_people import marked_people

        name_people = partial(marked_people, read_marks(feedback), folder)
    summary = write_manifest(
        folder,
        out,
        pattern=pattern,
        infrared_cameras=_listed(infrared_cameras),
        modality_names=dict(_named(entry, "--modality-names") for entry in _listed(modality_names)),
        split=split,
        split_names=dict(_named(entry, "--split-names") for entry in _listed(split_names)),
        junk_people=_junk(junk_people),
        test_share=test_share,
        seed=seed,
        name_people=name_people,
    )
    print_line(str(summary))
    if out.resolve().parent != folder.resolve():
        print_line(f"note: its paths need --root {shlex.quote(str(folder))}")


@data_app.command("folders")
def folders(
    visible: Annotated[list[Path], typer.Option("--visible", help="A folder of visible images. Repeatable.")],
    infrared: Annotated[list[Path], typer.Option("--infrared", help="A folder of infrared images. Repeatable.")],
    out: Annotated[Path, typer.Option(help="The file to write."), Output("--out", MANIFEST)] = Path("site.csv"),
    camera_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression with one group.", show_default="the first folder below the given one"),
    ] = None,
    person_pattern: Annotated[str | None, typer.Option(help="The same for the person, if names contain it.")] = None,
    track_pattern: Annotated[str | None, typer.Option(help="The same for the track of a passing person.")] = None,
    time_pattern: Annotated[str | None, typer.Option(help="The same for the time, such as '(\\d{8}_\\d{6})'.")] = None,
    same_cameras: Annotated[
        bool, typer.Option("--same-cameras", help="Cameras of one name in both modalities are one camera.")
    ] = False,
    split: SplitOption = "train",
    junk_people: JunkOption = None,
    test_share: TestShareOption = None,
    seed: SeedOption = 1,
) -> None:
    """Write a manifest of folders of photographs, visible and infrared ones, which may have subfolders."""
    from models.modality import PerModality
    from pipeline.data.datasets.manifest.folders import FolderPatterns, write_folders

    summary = write_folders(
        PerModality(visible, infrared),
        out,
        patterns=FolderPatterns(camera_pattern, person_pattern, track_pattern, time_pattern),
        same_cameras=same_cameras,
        split=split,
        junk_people=_junk(junk_people),
        test_share=test_share,
        seed=seed,
    )
    print_line(str(summary))
    command = "train plus-sysu" if split == "train" else "evaluate RUN"
    print_line(f"next: vireid {command} --data {shlex.quote(str(out))}")


def _junk(text: str | None) -> list[str] | None:
    return None if text is None else [one for one in _listed(text) if one != "none"]


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _named(entry: str, option: str) -> tuple[str, str]:
    name, separator, meaning = entry.partition("=")
    if not separator:
        raise typer.BadParameter(f"{entry!r} has no '='", param_hint=option)
    return name.strip(), meaning.strip()
