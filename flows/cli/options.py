"""Options of several commands, and their checks, which raise `ConfigError`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from models.modality import Modality
    from pipeline.runtime.device import PrecisionSetting

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:N.")]
PrecisionOption = Annotated[
    str | None, typer.Option(help="auto, float32 or bfloat16.", show_default="that of the run, float32 on a CPU")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Images decoded at once.", show_default="one for each core")
]
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


def precision_of(value: str | None) -> "PrecisionSetting | None":
    """The value of `--precision`, or None."""
    if value is None:
        return None
    return cast("PrecisionSetting", one_of("--precision", value, ("auto", "float32", "bfloat16")))
