"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from models.modality import Modality

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:N.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Images decoded at once.", show_default="one for each core")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Where runs are kept.")]


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """The value of an option that takes one of a few words.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in known:
        raise ConfigError(f"{option} {value!r} does not exist", hint=f"choose from: {', '.join(known)}")
    return value


def renamed(old: str, new: str) -> Any:
    """An option that no help text shows: its use is an error that names the new option."""

    def refuse(value: str | None) -> None:
        if value is not None:
            raise ConfigError(f"{old} is called {new} now", hint=f"write {new} {value}")

    return typer.Option(old, hidden=True, callback=refuse)


def modality_of(option: str, value: str) -> "Modality":
    """The modality of an option's value.

    Raises:
        ConfigError: It is none.
    """
    from models.modality import Modality

    return Modality(one_of(option, value, ("visible", "infrared")))
