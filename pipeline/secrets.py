"""Passwords in text: user names and passwords of addresses, tokens, and secrets of the environment."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from traceback import format_exception
from types import TracebackType
from urllib.parse import quote, unquote

MASK = "***"

_SHORTEST = 4
"""Characters of the shortest value that is looked for by itself; a shorter one would be found in other words."""

_NAMES = (
    r"(?:[\w-]*(?:password|passwd|pwd|token|secret|signature|credential)|pass|sig"
    r"|[\w-]*(?:api|secret|access|account|private)[_-]?key)"
)
# A colon that begins a port is no user's: `http://host:5000/a@b`. A password may contain any sign but a space.
_USER = re.compile(r"(?<=://)(?:[^\s/?#:@'\"<>]+:(?!\d{1,5}(?:[/?#]|$))[^\s'\"<>]*@|[^\s/?#'\"<>]*@)")
_PORT = re.compile(r"\d{1,5}(?:[/?#]|$)")
_QUERY = re.compile(rf"(?i)((?:[?&;\s{{]|%26|%3B|^){_NAMES}(?:=|%3D))(?!\*\*\*)(?:'[^']*'|[^\s&;#'\"<>%),]+)")
_FIELD = re.compile(rf"(?i)((['\"]){_NAMES}\2:\s*)(['\"])(?!\*\*\*).*?\3")
_HEADER = re.compile(r"(?i)\b((?:basic|bearer)\s+)(?=[\w+/.~-]*[\d=_-])[\w+/.~-]{6,}=*")
_SECRET_NAME = re.compile(
    r"(?i)(?:password|passwd|_pwd|_pass|token|secret|_secret_key|_access_key|api_key|auth_string|connection_string)$"
)
_NO_SECRETS = {"true", "false", "none", "null", "auto"}


def masked(text: str) -> str:
    """The text with `***` for user and password of addresses, tokens of queries, and secret environment variables.

    >>> masked("MLflow at http://alice:s3cr3t@host:5000/?token=abc&page=2 does not answer")
    'MLflow at http://***@host:5000/?token=***&page=2 does not answer'
    """
    for secret in _secrets_of_environment():
        text = text.replace(secret, MASK)
    text = _USER.sub(f"{MASK}@", text)
    text = _QUERY.sub(rf"\g<1>{MASK}", text)
    text = _FIELD.sub(rf"\g<1>'{MASK}'", text)
    return _HEADER.sub(rf"\g<1>{MASK}", text)


def clickable(address: str) -> str:
    """An address without user, password and secret parts of its query, for links.

    >>> clickable("http://alice:s3cr3t@host/?token=abc")
    'http://host/?token=***'
    """
    return masked(address).replace(f"://{MASK}@", "://")


def masked_trace(error: BaseException) -> str:
    """The stack trace of an exception, masked."""
    return masked("".join(format_exception(error)))


def print_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:  # noqa: ARG001 - as `sys.excepthook` is called
    """Print the stack trace of an uncaught exception, masked."""
    sys.stderr.write(masked_trace(error))


class MaskingFilter(logging.Filter):
    """Masks log lines of a handler, and the stack traces below them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace message and trace by masked ones; every record passes."""
        with suppress(TypeError, ValueError):  # arguments that do not fit are reported by the handler
            line = record.getMessage()
            if (shown := masked(line)) != line:
                record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = masked_trace(record.exc_info[1]).rstrip("\n")
        return True


def mask_handlers(*names: str) -> None:
    """Mask what the handlers of these loggers, and those of their parents, write."""
    for name in names:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            for handler in logger.handlers:
                if not any(isinstance(one, MaskingFilter) for one in handler.filters):
                    handler.addFilter(MaskingFilter())
            logger = logger.parent if logger.propagate else None


def _secrets_of_environment() -> list[str]:
    """Values of secret variables, and passwords in addresses of any variable; the longest first."""
    found = {part for name, value in os.environ.items() for part in _secrets_of(name, value)} - _NO_SECRETS
    return sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)


def _secrets_of(name: str, value: str) -> Iterator[str]:
    if _SECRET_NAME.search(name):
        yield from (value, quote(value, safe=""))
        yield from value.split(":")[1:]  # `user:password` of an authorization
    # A proxy may be named without `http://`.
    address = f"://{value}" if name.lower().endswith("_proxy") and "://" not in value else value
    users = [user.removesuffix("@") for user in _USER.findall(address)]
    users.append(address.partition("://")[2].rpartition("@")[0])  # whatever signs the password has
    for user in users:
        password = user.partition(":")[2]
        if not user.startswith("/") and "//" not in password and not _PORT.match(password):
            yield from (password, unquote(password))
    for match in _QUERY.finditer(value):
        yield match.group().removeprefix(match.group(1))
