"""`vireid export`: a trained encoder as files for other programs."""

from pathlib import Path
from typing import Annotated, cast

import typer

from flows.cli.options import JsonOption, one_of
from flows.cli.printing import print_json, print_line

EXPORTS = Path("exports")
FORMATS = ("safetensors", "torchscript", "onnx")


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its checkpoint.")],
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder; exports/<run>-<format> when left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network for each modality, and how images are prepared for it; compared with the run's own."""
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
    print_line(f"largest difference from the run's own vectors: {exported.difference:.1e}")
