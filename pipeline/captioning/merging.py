"""The parts that several machines wrote, put together into one file: nothing twice, nothing missing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.captioning.provenance import DECIDING, differences, image_list
from pipeline.captioning.shards import Shard
from pipeline.data.captions.files import CaptionRow, meta_path, read_caption_rows, some_of
from pipeline.errors import ConfigError, DataError
from pipeline.runtime import atomic_files


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    meta: dict[str, Any]
    rows: list[CaptionRow]

    @property
    def shard(self) -> Shard:
        return Shard.parse(str(self.meta["shard"]))


def merge_captions(out: Path, parts: Sequence[Path]) -> int:
    """Put the caption files of all shards together, in the order of their paths.

    Args:
        out: The `.jsonl` file to write; its description is written beside it.
        parts: The file of every shard, each with its description.

    Returns:
        How many captions there are.

    Raises:
        ConfigError: `out` does not end in `.jsonl`.
        DataError: `out` exists; a part has no description, or was made otherwise than the first; a part is missing,
            given twice or not complete; an image is in two of them.
        CheckpointError: `out` cannot be written.
    """
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out}: captions are written as JSON lines", hint="let the name end in .jsonl")
    if out.exists():
        raise DataError(f"{out} exists", hint="name another file, or remove this one")
    read = [_read_part(path) for path in parts]
    first = read[0]
    for part in read[1:]:
        apart = differences(first.meta, part.meta, (*DECIDING, "all_images"))
        if apart:
            raise DataError(
                f"{part.path} was made otherwise than {first.path}: {'; '.join(apart)}",
                hint="caption one of them again with the options of the other",
            )
    _refuse_overlaps(read)
    _refuse_gaps(read)
    lines = sorted((row.path, line) for part in read for row, line in zip(part.rows, _lines(part.path), strict=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    whole = {**first.meta, "shard": None, "images": len(lines), "merged_from": len(read)}
    atomic_files.write_json(meta_path(out), whole)
    atomic_files.write_lines(out, [line for _, line in lines])
    return len(lines)


def _read_part(path: Path) -> _Part:
    rows = read_caption_rows(path, caption_field="caption", path_prefix="")
    meta = atomic_files.read_json(meta_path(path))
    if meta is None or meta.get("shard") is None:
        raise DataError(
            f"{path}: no {meta_path(path).name} beside it says which shard it is",
            hint="merge files that `vireid caption --shard` wrote",
        )
    return _Part(path, meta, rows)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _refuse_overlaps(parts: Sequence[_Part]) -> None:
    place_of: dict[str, str] = {}
    offenders: list[str] = []
    for part in parts:
        for row in part.rows:
            if row.path in place_of:
                offenders.append(f"{row.path} ({place_of[row.path]} and {row.place})")
            place_of[row.path] = row.place
    if offenders:
        raise DataError(some_of(offenders, "images that are there twice"), hint="give every shard once")


def _refuse_gaps(parts: Sequence[_Part]) -> None:
    counts = {part.shard.count for part in parts}
    if len(counts) > 1:
        raise DataError(
            f"the shards are parts of {' and of '.join(map(str, sorted(counts)))}", hint="merge shards of one division"
        )
    numbers = {part.shard.number for part in parts}
    absent = [str(number) for number in range(1, counts.pop() + 1) if number not in numbers]
    if absent:
        raise DataError(f"shard {', '.join(absent)} is missing", hint="give the file of every shard")
    short = [
        f"{part.path} has {len(part.rows):,} of {part.meta['images']:,} captions"
        for part in parts
        if len(part.rows) != part.meta["images"]
    ]
    found = image_list(row.path for part in parts for row in part.rows)
    if short or found != parts[0].meta["all_images"]:
        raise DataError(
            "; ".join(short) or f"{found['count']:,} captions, but not of the images that were to be described",
            hint="complete the shard by giving its command again",
        )
