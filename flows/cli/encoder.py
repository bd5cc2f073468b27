"""`vireid embed`, `vireid embed-merge` and `vireid export`: use the trained encoder of a run."""

from pathlib import Path
from typing import Annotated, cast

import typer

from flows.cli.options import (
    DeepRangeOption,
    DeviceOption,
    JsonOption,
    OrientationOption,
    Output,
    PrecisionOption,
    ShardOption,
    WorkersOption,
    deep_range_of,
    modality_of,
    one_of,
    orientation_of,
    precision_of,
)
from flows.cli.printing import print_json, print_line
from pipeline.runtime.outputs import FEATURES, VECTORS

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

CsvOption = Annotated[
    Path | None, typer.Option("--csv", help="Also write a table of the vectors."), Output("--csv", VECTORS.csv)
]
ParquetOption = Annotated[
    Path | None, typer.Option("--parquet", help="The same as Parquet."), Output("--parquet", VECTORS.parquet)
]
SqliteOption = Annotated[
    Path | None, typer.Option("--sqlite", help="The same as an SQLite file."), Output("--sqlite", VECTORS.sqlite)
]


def embed(
    run: RunArgument,
    images: Annotated[
        Path, typer.Argument(help="A folder, a manifest (.csv, .jsonl), a list of paths (.txt), or an image.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The .npz or .parquet file to write."), Output("--out", FEATURES)
    ],
    modality: Annotated[str | None, typer.Option(help="visible or infrared; selects rows of a manifest.")] = None,
    split: SplitOption = None,
    root: RootOption = None,
    shard: ShardOption = None,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    sqlite: SqliteOption = None,
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
    from pipeline.inference.embedded_files import embed_to_file
    from pipeline.inference.run_encoder import open_encoder
    from pipeline.runtime.shards import Shard
    from pipeline.runtime.table_files import TableFiles

    part = None if shard is None else Shard.parse(shard)
    chosen = list_images(images, None if modality is None else modality_of("--modality", modality), split or (), root)
    encoder = open_encoder(run, device, precision_of(precision), orientation_of(orientation), deep_range_of(deep_range))
    tables = TableFiles(csv, parquet, sqlite)
    written = embed_to_file(encoder, chosen, out, batch_size=batch_size, workers=workers, tables=tables, shard=part)
    if as_json:
        print_json({"file": str(out), **written.to_dict()})
    else:
        print_line(f"{out}: {written}")


def embed_merge(
    out: Annotated[Path, typer.Argument(help="The .npz or .parquet file to write."), Output("OUT", FEATURES)],
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="The file of every shard.")],
) -> None:
    """Merge the features of all shards; refused if one is missing, duplicated or of another encoder."""
    from pipeline.inference.merged_features import merge_features

    written = merge_features(out, shards)
    print_line(f"{out}: {written}, of {len(shards)} shards")


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
