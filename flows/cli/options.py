"""What options of several commands share."""

from typing import TYPE_CHECKING, Any

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from models.modality import Modality


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
