"""What options of several commands share."""

from pipeline.errors import ConfigError


def one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    """The value of an option that takes one of a few words.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in known:
        raise ConfigError(f"{option} {value!r} does not exist", hint=f"choose from: {', '.join(known)}")
    return value
