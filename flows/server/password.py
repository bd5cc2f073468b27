"""The password of our own Prefect servers: random, in a file that its owner alone can read."""

import os
import secrets
import stat
from pathlib import Path

from pipeline.errors import ConfigError

_NAME = "password"


def new_password() -> str:
    """A user and a random password, in the form that Prefect expects.

    >>> new_password().startswith("vireid:"), new_password() == new_password()
    (True, False)
    """
    return f"vireid:{secrets.token_urlsafe(24)}"


def password_file(folder: Path) -> Path:
    """The file with the password of the server whose logs are in `folder`."""
    return folder / _NAME


def kept_password(folder: Path) -> str:
    """The password in `folder`; made at the first call, and readable by this user only.

    Raises:
        ConfigError: The file is empty, belongs to another user, is no regular file, or cannot be used.
    """
    path = password_file(folder)
    hint = "remove it, and a new password is made"
    try:
        _make(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
                raise ConfigError(f"{path} is not a file of this user", hint=hint)
            os.fchmod(descriptor, 0o600)
            password = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{path} cannot be used: {what}", hint="choose another folder with --runs") from error
    if ":" not in password:
        raise ConfigError(f"{path} does not contain a name and a password", hint=hint)
    return password


def _make(path: Path) -> None:
    """Write a new password, unless the file exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(new_password() + "\n")
