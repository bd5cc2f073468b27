"""`vireid caption`: training images described by a vision-language model; `vireid caption-merge`: shards together."""

from pathlib import Path
from typing import Annotated, cast

import typer

from flows.cli.options import DeviceOption, JsonOption, one_of, renamed
from flows.cli.printing import print_json, print_line
from pipeline.captioning.settings import PRECISIONS, VARIANTS, CaptionSettings, Precision, Shard, Variant

_VARIANT = "--prompt-variant"

NameArgument = Annotated[str, typer.Argument(metavar="DATASET", help="sysu, regdb, llcm, or manifest.")]
PathArgument = Annotated[Path, typer.Argument(help="The folder of the data set, or the manifest file.")]
ModelOption = Annotated[
    str, typer.Option(help="A model's name, such as llava-hf/llava-1.5-7b-hf, or its folder; stub for none.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="The .jsonl file; runs/captions/<data set>.jsonl when left out.")
]
PromptOption = Annotated[str | None, typer.Option(help="What is asked about every image.")]
InfraredPromptOption = Annotated[str | None, typer.Option(help="What is asked about infrared images.")]
VariantOption = Annotated[str | None, typer.Option(help=f"{', '.join(VARIANTS)}: instructions at hand.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Images at once; halved where memory is too small.")]
TokensOption = Annotated[int, typer.Option(min=1, help="The longest caption, in the model's own tokens.")]
PrecisionOption = Annotated[str, typer.Option(help="auto (bfloat16 on a GPU), float32, or bfloat16.")]
ShardOption = Annotated[str | None, typer.Option(help="A part of the images: 1/4 is the first of four.")]
NewOption = Annotated[bool, typer.Option("--new", help="Put a file that is there aside, and begin again.")]
LocalOption = Annotated[bool, typer.Option("--local-files-only", help="Do not ask the model's hub for anything.")]
SplitOption = Annotated[int | None, typer.Option(min=1, max=10, help="RegDB: one split; all when left out.")]
RootOption = Annotated[Path | None, typer.Option(help="Where a manifest's paths start; its own folder when left out.")]
OverlapOption = Annotated[bool, typer.Option("--allow-overlap", help="Let a manifest name a person in both parts.")]
PartialOption = Annotated[bool, typer.Option("--allow-partial", help="Go on when counts differ.")]


def caption(
    name: NameArgument,
    path: PathArgument,
    model: ModelOption,
    out: OutOption = None,
    prompt: PromptOption = None,
    infrared_prompt: InfraredPromptOption = None,
    prompt_variant: VariantOption = None,
    batch_size: BatchOption = 8,
    max_new_tokens: TokensOption = 60,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    shard: ShardOption = None,
    new: NewOption = False,
    local_files_only: LocalOption = False,
    split: SplitOption = None,
    _trial: Annotated[str | None, renamed("--trial", "--split")] = None,
    root: RootOption = None,
    allow_overlap: OverlapOption = False,
    allow_partial: PartialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Describe every training image; it can be stopped at any time, and the same command goes on."""
    from pipeline.captioning.captioning import caption_images_of, read_images
    from pipeline.data.captions.files import written_captions

    settings = CaptionSettings(
        model=model,
        variant=None if prompt_variant is None else cast(Variant, one_of(_VARIANT, prompt_variant, VARIANTS)),
        prompt=prompt,
        infrared_prompt=infrared_prompt,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        device=device,
        precision=cast(Precision, one_of("--precision", precision, PRECISIONS)),
        shard=None if shard is None else Shard.parse(shard),
        start_over=new,
        local_files_only=local_files_only,
    )
    dataset, tables = read_images(
        name, path, split=split, images_root=root, allow_overlap=allow_overlap, allow_partial=allow_partial
    )
    file = out or written_captions(Path("runs"), _name(dataset.name, settings.shard))
    outcome = caption_images_of(dataset, tables, file, settings)
    if as_json:
        print_json({"file": str(file), **outcome.to_dict()})
    else:
        print_line(f"{file}: {outcome}")
    if outcome.failed:
        raise typer.Exit(1)


def caption_merge(
    out: Annotated[Path, typer.Argument(help="The .jsonl file to write.")],
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="The file of every shard.")],
) -> None:
    """Put the files of all shards together; refused where an image is missing or there twice."""
    from pipeline.captioning.files import merge_captions

    count = merge_captions(out, shards)
    print_line(f"{out}: {count:,} captions of {len(shards)} shards")


def _name(dataset: str, shard: Shard | None) -> str:
    return dataset if shard is None else f"{dataset}.shard-{str(shard).replace('/', '-of-')}"
