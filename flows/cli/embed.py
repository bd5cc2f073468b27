"""`vireid embed`: images into vectors, by the encoder of a run."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DeviceOption, JsonOption, PrecisionOption, WorkersOption, modality_of, precision_of
from flows.cli.printing import print_json, print_line

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's folder, its checkpoint, or a model of MLflow: models:/NAME/1.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images encoded at once.")]
RootOption = Annotated[
    Path | None, typer.Option(help="Where paths of manifests and lists start; the file's own folder if left out.")
]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="A part of a manifest, such as query. May be given again.")
]


def embed(
    run: RunArgument,
    images: Annotated[
        Path, typer.Argument(help="A folder, a manifest (.csv, .jsonl), a list of paths (.txt), or an image.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz file that is written.")],
    modality: Annotated[
        str | None, typer.Option(help="visible or infrared; of a manifest, the rows of one of them.")
    ] = None,
    split: SplitOption = None,
    root: RootOption = None,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn images into vectors that `vireid rank` and `vireid label` take; killed, the same command goes on."""
    from pipeline.data.image_list import list_images
    from pipeline.inference.embedding import embed_to_file
    from pipeline.inference.run_encoder import open_encoder

    chosen = list_images(images, None if modality is None else modality_of("--modality", modality), split or (), root)
    encoder = open_encoder(run, device, precision_of(precision))
    written = embed_to_file(encoder, chosen, out, batch_size=batch_size, workers=workers)
    if as_json:
        print_json({"file": str(out), **written.to_dict()})
    else:
        print_line(f"{out}: {written}")
