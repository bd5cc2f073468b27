"""Options of several commands, and their checks, which raise `ConfigError`."""

import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer
from typer.core import TyperGroup

from pipeline.errors import ConfigError
from pipeline.inference.milvus_address import address_of
from pipeline.runtime.outputs import QUERIES, STDOUT, OutputKind, check_file, check_folder

if TYPE_CHECKING:
    from models.modality import Modality
    from pipeline.config.datasets import DeepRange, Orientation
    from pipeline.runtime.device import PrecisionSetting


@dataclass(frozen=True, slots=True)
class Output:
    """Marks a parameter as an output: a file of a kind, or a folder (None). `check_outputs_of` acts on it."""

    option: str
    kind: OutputKind | None = None


def check_outputs_of(group: typer.Typer) -> None:
    """Check the outputs of every registered command against its inputs and against what exists, before it runs."""
    for command in group.registered_commands:
        assert command.callback is not None
        command.callback = _checked(command.callback)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        check_outputs_of(inner.typer_instance)


def _checked(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def _call(**values: Any) -> Any:
        hints = get_type_hints(command, include_extras=True)
        outputs = {
            name: mark
            for name, hint in hints.items()
            for mark in getattr(hint, "__metadata__", ())
            if isinstance(mark, Output) and values.get(name) is not None
        }
        inputs = [path for name, value in values.items() if name not in outputs for path in _existing(value)]
        for name, mark in outputs.items():
            if mark.kind is None:
                if address_of(values[name]) is None:
                    check_folder(values[name], mark.option)
            else:
                others = [values[other] for other in outputs if other != name]
                check_file(values[name], mark.kind, mark.option, inputs, others)
        streamed = [mark.option for name, mark in outputs.items() if mark.kind is not None and values[name] == STDOUT]
        if not streamed:
            return command(**values)
        if values.get("as_json"):
            raise ConfigError(f"{streamed[0]} - and --json both print", hint="name a file for one of them")
        with redirect_stdout(sys.stderr):  # what the command prints besides
            return command(**values)

    return _call


def _existing(value: object) -> Iterator[Path]:
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(one, (str, Path)):
            yield Path(one)


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:N.")]
PrecisionOption = Annotated[
    str | None, typer.Option(help="auto, float32 or bfloat16.", show_default="that of the run, float32 on a CPU")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Images decoded at once.", show_default="one for each core")
]
PerQueryOption = Annotated[
    Path | None,
    typer.Option(help="Write the results of each query to this .npz file."),
    Output("--per-query", QUERIES),
]
OrientationOption = Annotated[str | None, typer.Option(help="Orientation tags of images: apply, or ignore.")]
DeepRangeOption = Annotated[
    str | None,
    typer.Option(help="Black and white of images of more than 8 bits: LOW,HIGH; or image, its own limits."),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-unreadable", help="Skip images that cannot be read; they are counted by kind.")
]
ShardOption = Annotated[str | None, typer.Option(help="A part of the images: 1/4 is the first of four.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a value: section.key=value. Repeatable.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="The folder of runs.")]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="sysu, regdb, llcm, or manifest.")]
DatasetPathArgument = Annotated[Path, typer.Argument(help="The folder of the data set, or the manifest file.")]
ManifestRootOption = Annotated[
    Path | None, typer.Option("--root", help="Base folder of a manifest's paths.", show_default="its own folder")
]
OverlapOption = Annotated[
    bool, typer.Option("--allow-overlap", help="Accept a manifest with a person in training and test.")
]
PartialOption = Annotated[bool, typer.Option("--allow-partial", help="Accept counts that differ from published ones.")]


_HOME = re.compile(r"(--[\w-]+=|-[a-zA-Z])?(~.*)", re.DOTALL)
_SHORT_WITH_VALUE = re.compile(r"(-[a-zA-Z])=(.*)", re.DOTALL)


class Commands(TyperGroup):
    """Commands whose arguments may begin with `~`, also after `--option=` and `-o=`, where shells leave it as it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace `~` by the home folder; `./~` is no home folder. `-o=FILE` is `-o FILE`, as `--out=FILE` is."""
        return super().parse_args(ctx, [_at_home(one) for one in _without_equals(args)])


def _without_equals(arguments: list[str]) -> Iterator[str]:
    """The arguments with short options and their values apart; those after `--` are no options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for one in options:
        match = _SHORT_WITH_VALUE.fullmatch(one)
        yield from [one] if match is None else match.groups()
    yield from arguments[len(options) :]


def _at_home(argument: str) -> str:
    match = _HOME.fullmatch(argument)
    if match is None:
        return argument
    return (match[1] or "") + os.path.expanduser(match[2])  # noqa: PTH111 - a Path drops `./`


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """The value of an option, if it is one of the known ones."""
    if value not in known:
        raise ConfigError(f"{option} {value!r} does not exist", hint=f"choose from: {', '.join(known)}")
    return value


def renamed(old: str, new: str) -> Any:
    """An option that help does not show; its use is an error that names the new option."""

    def refuse(value: str | None) -> None:
        if value is not None:
            raise ConfigError(f"{old} is called {new} now", hint=f"write {new} {value}")

    return typer.Option(old, hidden=True, callback=refuse)


def modality_of(option: str, value: str) -> "Modality":
    """The modality of an option's value."""
    from models.modality import Modality

    return Modality(one_of(option, value, ("visible", "infrared")))


def orientation_of(value: str | None) -> "Orientation | None":
    """The value of `--orientation`, or None."""
    if value is None:
        return None
    return cast("Orientation", one_of("--orientation", value, ("apply", "ignore")))


def deep_range_of(value: str | None) -> "DeepRange | None":
    """The value of `--deep-range`, or None."""
    if value is None or value == "image":
        return cast("DeepRange | None", value)
    try:
        low, high = (float(part) for part in value.split(","))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(
            f"--deep-range {value!r} is not two ascending numbers", hint="for instance --deep-range 28000,31000"
        )
    return low, high


def precision_of(value: str | None) -> "PrecisionSetting | None":
    """The value of `--precision`, or None."""
    if value is None:
        return None
    return cast("PrecisionSetting", one_of("--precision", value, ("auto", "float32", "bfloat16")))
