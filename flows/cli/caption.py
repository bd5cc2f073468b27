"""`vireid caption`: caption training images with a vision-language model; `vireid caption-merge`: merge shards."""

from pathlib import Path
from typing import Annotated, cast

import typer

from flows.cli.options import (
    DatasetArgument,
    DatasetPathArgument,
    DeviceOption,
    JsonOption,
    ManifestRootOption,
    Output,
    OverlapOption,
    PartialOption,
    ShardOption,
    one_of,
    renamed,
)
from flows.cli.printing import print_json, print_line
from pipeline.captioning.settings import PRECISIONS, VARIANTS, CaptionSettings, Precision, Variant
from pipeline.runtime.outputs import CAPTIONS
from pipeline.runtime.shards import Shard

_VARIANT = "--prompt-variant"

ModelOption = Annotated[
    str, typer.Option(help="A model's name, such as llava-hf/llava-1.5-7b-hf, or its folder; stub for a test.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The .jsonl file.", show_default="runs/captions/<data set>.jsonl"),
    Output("--out", CAPTIONS),
]
PromptOption = Annotated[str | None, typer.Option(help="The prompt for every image.")]
InfraredPromptOption = Annotated[str | None, typer.Option(help="The prompt for infrared images.")]
VariantOption = Annotated[str | None, typer.Option(help=f"A built-in prompt: {', '.join(VARIANTS)}.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Images in a batch; halved if memory is too small.")]
TokensOption = Annotated[int, typer.Option(min=1, help="The longest caption, in tokens of the model.")]
PrecisionOption = Annotated[str, typer.Option(help="auto (bfloat16 on a GPU), float32, or bfloat16.")]
NewOption = Annotated[bool, typer.Option("--new", help="Rename an existing file, and start again.")]
LocalOption = Annotated[bool, typer.Option("--local-files-only", help="Do not access the model's hub.")]
SplitOption = Annotated[int | None, typer.Option(min=1, max=10, help="RegDB: one split.", show_default="all")]


def caption(
    name: DatasetArgument,
    path: DatasetPathArgument,
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
    root: ManifestRootOption = None,
    allow_overlap: OverlapOption = False,
    allow_partial: PartialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Caption every training image; an interrupted command resumes when repeated."""
    from pipeline.captioning.captioning import caption_images_of, read_images
    from pipeline.data.captions.files import written_captions
    from pipeline.data.dataset import reading_of

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
    outcome = caption_images_of(dataset, tables, file, settings, reading_of(name))
    if as_json:
        print_json({"file": str(file), **outcome.to_dict()})
    else:
        print_line(f"{file}: {outcome}")
    if outcome.failed:
        raise typer.Exit(1)


def caption_merge(
    out: Annotated[Path, typer.Argument(help="The .jsonl file to write."), Output("OUT", CAPTIONS)],
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="The file of every shard.")],
) -> None:
    """Merge the files of all shards; refused if an image is missing or duplicated."""
    from pipeline.captioning.files import merge_captions

    count = merge_captions(out, shards)
    print_line(f"{out}: {count:,} captions of {len(shards)} shards")


def _name(dataset: str, shard: Shard | None) -> str:
    return dataset if shard is None else shard.name_for(dataset)
