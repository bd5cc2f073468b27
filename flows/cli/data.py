"""`vireid data`: draw a data set, check one, decode one, describe one by a manifest."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.printing import print_check, print_json, stdout

data_app = typer.Typer(no_args_is_help=True, help="Draw, check, decode and describe data sets.")

NameArgument = Annotated[str, typer.Argument(help="sysu, regdb, llcm, or manifest.")]
PathArgument = Annotated[Path, typer.Argument(help="The folder of the data set, or the manifest file.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", help="Where a manifest's paths start; its own folder when left out.")
]
OverlapOption = Annotated[
    bool, typer.Option("--allow-overlap", help="Let a manifest name a person in training and in test.")
]
HeightOption = Annotated[int, typer.Option(min=16, max=1024, help="Rows of pixels.")]
WidthOption = Annotated[int, typer.Option(min=16, max=1024, help="Columns of pixels.")]


@data_app.command("synth")
def synth(
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    size: Annotated[str, typer.Option(help="smoke, demo, or large.")] = "demo",
    layout: Annotated[str, typer.Option(help="sysu, regdb, llcm, or manifest.")] = "sysu",
    seed: Annotated[int, typer.Option(help="Other seeds draw other people.")] = 1,
    difficulty: Annotated[str, typer.Option(help="easy, moderate, default, or hard.")] = "default",
    height: Annotated[int | None, typer.Option(help="Rows of pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Columns of pixels.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that draw; one a core when left out.")] = None,
) -> None:
    """Draw a data set of people who do not exist."""
    from pipeline.data.synthetic.writer import generate_dataset

    generate_dataset(
        out, size=size, layout=layout, seed=seed, difficulty=difficulty, height=height, width=width, workers=workers
    )


@data_app.command("check")
def check(
    name: NameArgument,
    path: PathArgument,
    root: RootOption = None,
    allow_overlap: OverlapOption = False,
    skip_images: Annotated[bool, typer.Option("--skip-images", help="Do not decode every image.")] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Also compare decoded images in this folder with their digests.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Images decoded at once; one a core by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare a data set with what is published about it, and read every image; exit code 1 when anything differs."""
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
    name: NameArgument,
    path: PathArgument,
    cache: Annotated[Path, typer.Option("--cache", help="Where decoded images are kept.")] = Path("runs") / "images",
    height: HeightOption = 288,
    width: WidthOption = 144,
    root: RootOption = None,
    allow_overlap: OverlapOption = False,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Go on when counts differ.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Images decoded at once; one a core by default.")] = None,
) -> None:
    """Decode all images once, for every later run of that size; an interrupted build goes on where it stood."""
    from pipeline.data.dataset import read_dataset, spec_of, verified_store

    dataset = read_dataset(
        name,
        path,
        split=spec_of(name).any_split,  # the images of all splits are the same
        images_root=root,
        allow_overlap=allow_overlap,
        allow_partial=allow_partial,
    )
    store = verified_store(dataset.images, height=height, width=width, cache_folder=cache, workers=workers)
    counts = store.arrays.map(len)
    stdout().print(
        f"{counts.visible:,} visible and {counts.infrared:,} infrared images of {height} x {width} in {store.folder}",
        soft_wrap=True,
        highlight=False,
    )


@data_app.command("manifest")
def manifest(
    folder: Annotated[Path, typer.Argument(help="Where the images lie.")],
    pattern: Annotated[
        str, typer.Option(help="How paths are made, such as 'cam{camera}/{person}/{name}'; also {modality}, {split}.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("manifest.csv"),
    infrared_cameras: Annotated[str, typer.Option(help="Cameras that are infrared, separated by commas.")] = "",
    modality_names: Annotated[
        str, typer.Option(help="What {modality} is called, such as 'Thermal=infrared,Visible=visible'.")
    ] = "",
    split: Annotated[str, typer.Option(help="train, val, query, gallery, or test, where the pattern says none.")] = (
        "train"
    ),
    test_share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Put this share of the people into test, the rest into train."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides who is put into test.")] = 1,
) -> None:
    """Describe folders of images by a manifest; the modality is never guessed from pixels."""
    from pipeline.data.datasets.manifest.writer import write_manifest

    summary = write_manifest(
        folder,
        out,
        pattern=pattern,
        infrared_cameras=_listed(infrared_cameras),
        modality_names=dict(_named(entry) for entry in _listed(modality_names)),
        split=split,
        test_share=test_share,
        seed=seed,
    )
    stdout().print(str(summary), soft_wrap=True, highlight=False, markup=False)
    if out.resolve().parent != folder.resolve():
        stdout().print(f"note: read it with --root {folder}, where its paths start", soft_wrap=True, highlight=False)


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _named(entry: str) -> tuple[str, str]:
    name, separator, modality = entry.partition("=")
    if not separator:
        raise typer.BadParameter(f"{entry!r} has no '='", param_hint="--modality-names")
    return name.strip(), modality.strip()
