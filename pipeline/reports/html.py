"""Frame, style and writing of HTML pages that work offline."""

from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runtime.atomic_files import replace_file

_START = "<!DOCTYPE html>\n"
_STYLE = "page.css"
_HINT = "name another file with --html"


def page_start(title: str, style: str = "") -> str:
    """The page up to its headline; `style` is added to the common style sheet."""
    common = (resources.files("pipeline.reports") / _STYLE).read_text(encoding="utf-8")
    return (
        f'{_START}<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        # Browsers then refuse scripts and external resources.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">\n'
        f"<style>\n{common}{style}</style></head><body>\n<h1>{escape(title)}</h1>\n"
    )


def page_end() -> str:
    """The end of the page."""
    return "</body></html>\n"


def write_page(file: Path, parts: Iterable[str]) -> None:
    """Write a page atomically; an existing page is replaced. Undecodable file names are escaped.

    Raises:
        ConfigError: The file cannot be written, or exists and is not a page.
    """
    try:
        if file.exists() and not file.read_bytes().startswith(_START.encode()):
            raise ConfigError(f"{file} exists and is not a page", hint=_HINT)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(parts).encode(errors="backslashreplace")

        def write(open_file: BinaryIO) -> None:
            open_file.write(content)

        replace_file(file, write)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", hint=_HINT) from error
    except CheckpointError as error:
        raise ConfigError(error.message, hint=_HINT) from error
